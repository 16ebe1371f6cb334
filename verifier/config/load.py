"""Reads the configuration from a YAML file and the environment. It reports every error, with its place and a hint."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from verifier.config import Config, ConfigError, yaml_errors
from verifier.config.environment import Environment, read_environment, variable_of
from verifier.config.fields import Context, Section
from verifier.config.model import Settings
from verifier.config.yaml_errors import Place
from verifier.policy.clients import ClientIds

log = logging.getLogger(__name__)

AnySection = TypeVar("AnySection", bound=Section)

_MESSAGES = {
    "missing": "is missing",
    "string_type": "must be text: put it in quotes",
    "list_type": "must be a list: put it in [ ]",
    "model_type": "must hold names with values, as in {name: value}",
    "dict_type": "must hold names with values, as in {name: value}",
}
"""By pydantic's kind of error."""


def load(path: Path | None, environment: Environment | None = None) -> Config:
    """The configuration of ``path``, else of M2M_CONFIG, else of the environment alone. Raises ConfigError."""
    environment = environment or read_environment()
    path = path or environment.m2m_config
    document = _Document(path)
    given = document.content
    for variable, reason in environment.without_effect(path if "issuers" in given else None):
        log.warning("%s has no effect: %s", variable, reason)
    issuer = None if "issuers" in given else environment.issuer()
    if issuer is not None:
        given = {**given, "issuers": [issuer]}
    issuers = given.get("issuers")
    names = [str(one.get("name")) for one in issuers if isinstance(one, dict)] if isinstance(issuers, list) else []
    context = Context(folder=path.parent if path else Path(), client_ids=ClientIds(tuple(names)), owners={})

    def where(place: Place) -> str:
        return variable_of(place) if issuer is not None and place[:1] == ("issuers",) else document.at(place)

    return _validated(Settings, given, context, where).build(path, document.content_bytes, environment.listen())


def load_section(kind: type[AnySection], path: Path) -> AnySection:
    """The content of a file of another kind, written in the same style. Raises ConfigError."""
    document = _Document(path)
    context = Context(folder=path.parent, client_ids=ClientIds(()), owners={})
    return _validated(kind, document.content, context, document.at)


def _validated(
    kind: type[AnySection], given: dict[str, Any], context: Context, where: Callable[[Place], str]
) -> AnySection:
    try:
        return kind.model_validate(given, context=context)
    except ValidationError as error:
        problems = []
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            place = tuple(part for part in one["loc"] if part != "[key]")  # as pydantic marks a mapping's key
            problems.append(f"{where(place)}: {_message(one['type'], one['msg'], place)}")
    raise ConfigError(problems)  # here, because the other error quotes what is configured


@lru_cache(maxsize=1)  # the watch asks four times a second about the same content
def key_files(content: bytes | None, folder: Path) -> tuple[Path, ...]:
    """The key files that ``content`` names, as far as it can be read; ``folder`` is the configuration file's."""
    try:
        issuers = yaml.load(content or b"", _Loader)["issuers"]  # noqa: S506 - _Loader is a SafeLoader
        named = [issuer.get("jwks_file") for issuer in issuers if isinstance(issuer, dict)]
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError):
        return ()
    return tuple(folder / name for name in named if isinstance(name, str))


def _message(kind: str, message: str, place: Place) -> str:
    """A message with a hint, from pydantic's kind of error and its message."""
    if kind == "extra_forbidden":
        known = sorted({name for section in Section.__subclasses__() for name in section.model_fields})
        if place[-1] in known:
            return "unknown key here: it belongs in another section"
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        return "unknown key" + (f": did you mean `{close[0]}`?" if close else "")
    if kind == "missing" and place == ("issuers",):
        return "no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER, or a file (--config, M2M_CONFIG) with `issuers:`"
    return _MESSAGES.get(kind) or message.removeprefix("Value error, ")


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
        _, line = yaml_errors.find(self._root, place)
        return ": ".join(filter(None, (self._name + (f":{line}" if line else ""), yaml_errors.written(place))))
