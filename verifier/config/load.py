"""Reads the configuration from a YAML file and the environment. It reports every error, with its place and a hint."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from verifier.config import Config, ConfigError, issuers, model, yaml_errors
from verifier.config.environment import Environment, read_environment
from verifier.config.fields import Context
from verifier.config.model import Settings
from verifier.policy.clients import ClientIds

log = logging.getLogger(__name__)

Place = tuple[str | int, ...]


def load(path: Path | None, environment: Environment | None = None) -> Config:
    """The configuration of ``path``, else of M2M_CONFIG, else of the environment alone. Raises ConfigError."""
    environment = environment or read_environment()
    path = path or environment.m2m_config
    document = _Document(path)
    given = document.content
    variables: Mapping[str, str] = {}
    for variable, reason in environment.without_effect(path if "issuers" in given else None):
        log.warning("%s has no effect: %s", variable, reason)
    if "issuers" not in given:
        from_environment = environment.issuer()
        if from_environment is not None:
            issuer, variables = from_environment
            given = {**given, "issuers": [issuer]}
    settings, problems = _validate(given, path.parent if path else Path())
    if settings is not None and not problems:
        return settings.build(path, document.content_bytes, environment.listen())
    raise ConfigError(
        [f"{_variable(place, variables) or document.at(place)}: {problem}" for place, problem in problems.items()]
    )


def key_files(content: bytes, folder: Path) -> list[Path]:
    """The key files that ``content`` names, as far as it can be read; ``folder`` is the configuration file's."""
    try:
        issuers = yaml.load(content, _Loader)["issuers"]  # noqa: S506 - _Loader is a SafeLoader
        named = [issuer.get("jwks_file") for issuer in issuers if isinstance(issuer, dict)]
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError):
        return []
    return [folder / name for name in named if isinstance(name, str)]


def _validate(given: Any, folder: Path) -> tuple[Settings | None, dict[Place, str]]:
    """The settings and their problems, by place.

    pydantic checks what must fit together only once each part is valid. So each invalid part is removed and the rest is
    validated again, until no new problem appears.
    """
    problems: dict[Place, str] = {}
    removed: set[Place] = set()
    given = copy.deepcopy(given)
    issuers = given.get("issuers") if isinstance(given.get("issuers"), list) else []
    names = tuple(str(issuer.get("name")) for issuer in issuers if isinstance(issuer, dict))
    context = Context(folder=folder, client_ids=ClientIds(names))
    while True:
        try:
            settings = Settings.model_validate(given, context=context)
        except ValidationError as error:
            just_removed: set[Place] = set()
            for one in error.errors(include_url=False, include_input=False, include_context=False):
                place = _place(one["loc"])
                if place in removed:  # it is required, so what holds it is removed too
                    place = place[:-1]
                else:
                    problems[place] = _message(one["type"], one["msg"], one["loc"])
                if not any(place[: len(known)] == known for known in just_removed):
                    just_removed |= _remove(given, place)
            if not just_removed:
                return None, problems
            removed |= just_removed
        else:
            return settings, problems | dict(settings.problems(removed))


def _remove(given: Any, place: Place) -> set[Place]:
    """Delete what is at ``place``, or the smallest member of a mapping that holds it. Returns the place deleted."""
    holders = [given]
    for part in place[:-1]:
        try:
            holders.append(holders[-1][part])
        except (LookupError, TypeError):
            break
    for end in range(min(len(holders), len(place)), 0, -1):
        holder, member = holders[end - 1], place[end - 1]
        if isinstance(holder, dict) and member in holder and place[:end] != ("issuers",):
            del holder[member]
            return {place[:end]}
    return set()


_NO_ISSUER = "no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER, or a file (--config, M2M_CONFIG) with `issuers:`"


def _variable(place: Place, variables: Mapping[str, str]) -> str | None:
    if variables and place[:1] == ("issuers",):
        return next((variables[str(part)] for part in reversed(place) if str(part) in variables), None) or ", ".join(
            variables.values()
        )
    return None


def _place(location: Place) -> Place:
    """Where an error is: pydantic marks a mapping's key by a last part of its own."""
    return location[:-1] if location and location[-1] == "[key]" else location


def _message(kind: str, message: str, location: Place) -> str:
    """A message with a hint, from pydantic's kind of error and its message."""
    if kind == "extra_forbidden":
        known = {name for part in (*vars(model).values(), *vars(issuers).values()) for name in _fields(part)}
        if location[-1] in known:
            return "unknown key here: it belongs in another section"
        close = difflib.get_close_matches(str(location[-1]), sorted(known), n=1)
        return "unknown key" + (f": did you mean `{close[0]}`?" if close else "")
    if kind == "missing":
        return _NO_ISSUER if location == ("issuers",) else "is missing"
    if kind == "string_type":
        return "must be text: put it in quotes"
    if kind == "list_type":
        return "must be a list: put it in [ ]"
    if kind in ("model_type", "dict_type"):
        return "must hold names with values, as in {name: value}"
    return message.removeprefix("Value error, ")


def _fields(model: Any) -> Iterator[str]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        yield from model.model_fields


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Document:
    """A YAML file's content, and the line of each part of it."""

    def __init__(self, path: Path | None) -> None:
        self._name = str(path) if path else "configuration"
        self._root: yaml.Node | None = None
        self.content: dict[str, Any] = {}
        self.content_bytes = b""
        if path is None:
            return
        try:
            self.content_bytes = path.read_bytes()
            text = self.content_bytes.decode("utf-8")
            self._root = yaml.compose(text, _Loader)
            content = yaml.load(text, _Loader)  # noqa: S506 - _Loader is a SafeLoader
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise ConfigError([f"{path}: is not UTF-8"]) from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            line, problem = yaml_errors.describe(error)
            raise ConfigError([f"{path}{f':{line}' if line else ''}: {problem}"]) from error
        if not isinstance(content, dict | None):
            raise ConfigError([f"{path}: must be a mapping, as in `issuers:`"])
        self.content = content or {}

    def at(self, place: Place) -> str:
        """``file:line: issuers[0].name``. Parts that the file lacks have the line of what should hold them."""
        node, line = self._root, None
        for part in place:
            child = _child(node, part)
            if child is None:
                break
            node, line = child
        named = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        return ": ".join(filter(None, (self._name + (f":{line}" if line else ""), named)))


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    return None
