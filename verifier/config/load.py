"""Reads the configuration: YAML file and environment. Every error at once, each with its place and a hint."""

from __future__ import annotations

import copy
import difflib
import json
import logging
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from verifier.config import Config, ConfigError, Listen, digest
from verifier.config import model as models
from verifier.config import yaml_errors as yaml_error
from verifier.config.model import Settings
from verifier.policy.policies import ClientIds

log = logging.getLogger(__name__)

Place = tuple[str | int, ...]


class Environment(BaseSettings):
    """Environment variables; each field is one, in upper case."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    cognito_region: str = "us-east-1"
    cognito_user_pool_id: str = ""
    cognito_client_ids: str = ""
    oauth_issuer: str = ""
    oauth_jwks_url: str = ""
    oauth_audience: str = ""
    m2m_config: Path | None = None
    m2m_host: str = "0.0.0.0"  # noqa: S104 - a service in a container is asked from outside
    m2m_port: int = Field(default=8000, ge=0, le=65535)
    m2m_metrics_port: int = Field(default=9090, ge=0, le=65535)
    m2m_workers: int = Field(default=1, ge=1, le=64)

    def issuer(self) -> tuple[dict[str, Any], Mapping[str, str]] | None:
        """The one issuer that the environment describes, as the file would, and which variable says what."""
        if self.cognito_user_pool_id and self.oauth_issuer:
            raise ConfigError(
                ["COGNITO_USER_POOL_ID, OAUTH_ISSUER: give one; several issuers need a file (M2M_CONFIG)"]
            )
        if self.cognito_user_pool_id:
            pool = {"region": self.cognito_region, "user_pool_id": self.cognito_user_pool_id}
            clients = _words(self.cognito_client_ids)
            return (
                {"name": "cognito", "cognito": pool} | ({"clients": clients} if clients else {}),
                {"region": "COGNITO_REGION", "user_pool_id": "COGNITO_USER_POOL_ID", "clients": "COGNITO_CLIENT_IDS"},
            )
        if self.oauth_issuer:
            profile = "cognito" if models.COGNITO_ISSUER.fullmatch(self.oauth_issuer) else "generic"
            if profile == "generic" and not self.oauth_audience:
                log.warning("OAUTH_AUDIENCE is not set: only tokens without aud pass (`any` accepts every audience)")
            return (
                {
                    "name": "oauth",
                    "issuer": self.oauth_issuer,
                    "profile": profile,
                    # Nobody wrote `any`: without an audience, only tokens without `aud` pass.
                    "audience": _words(self.oauth_audience) or [],
                }
                | ({"jwks_url": self.oauth_jwks_url} if self.oauth_jwks_url else {}),
                {"issuer": "OAUTH_ISSUER", "jwks_url": "OAUTH_JWKS_URL", "audience": "OAUTH_AUDIENCE"},
            )
        return None

    def listen(self) -> Listen:
        """As the plain configuration has it."""
        return Listen(self.m2m_host, self.m2m_port, self.m2m_metrics_port, self.m2m_workers)


def _words(value: str) -> list[str] | None:
    return re.split(r"[\s,]+", value.strip(" ,\n\t")) if value.strip(" ,\n\t") else None


def read_environment() -> Environment:
    """The process's environment. Raises ConfigError."""
    try:
        return Environment()
    except ValidationError as error:
        raise ConfigError([f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]) from error


def load(path: Path | None, environment: Environment) -> Config:
    """The configuration of ``path``, else of M2M_CONFIG, else of the environment alone. Raises ConfigError."""
    path = path or environment.m2m_config
    document = _Document(path)
    given = document.content
    variables: Mapping[str, str] = {}
    if "issuers" in given:
        if environment.cognito_user_pool_id or environment.oauth_issuer:
            log.warning("%s names issuers: COGNITO_USER_POOL_ID and OAUTH_ISSUER are not looked at", path)
    else:
        from_environment = environment.issuer()
        if from_environment is not None:
            issuer, variables = from_environment
            given = {**given, "issuers": [issuer]}
    settings, problems = _validate(given, path.parent if path else Path())
    if settings is not None and not problems:
        return replace(settings.build(path, environment.listen()), digest=document.digest)
    raise ConfigError(
        [f"{_variable(place, variables) or document.at(place)}: {told}" for place, told in problems.items()]
    )


def _validate(given: Any, folder: Path) -> tuple[Settings | None, dict[Place, str]]:
    """What is wrong, by place.

    pydantic looks at what must fit together only once each part is right: so what is wrong is taken out, and the rest
    looked at again, until nothing new comes.
    """
    problems: dict[Place, str] = {}
    gone: set[Place] = set()
    given = copy.deepcopy(given)
    issuers = given.get("issuers") if isinstance(given.get("issuers"), list) else []
    names = tuple(str(issuer.get("name")) for issuer in issuers if isinstance(issuer, dict))
    context = models.Context(folder=folder, client_ids=ClientIds(names))
    while True:
        try:
            settings = Settings.model_validate(given, context=context)
        except ValidationError as error:
            taken_out: set[Place] = set()
            for one in error.errors(include_url=False, include_input=False, include_context=False):
                place = _place(one["loc"])
                if place in gone:  # it is needed, so what needs it goes too
                    place = place[:-1]
                else:
                    problems[place] = _told(one["type"], one["msg"], one["loc"])
                if not any(place[: len(known)] == known for known in taken_out):
                    taken_out |= _take_out(given, place)
            if not taken_out:
                return None, problems
            gone |= taken_out
        else:
            return settings, problems | dict(settings.problems(gone))


def _take_out(given: Any, place: Place) -> set[Place]:
    """Delete what is at ``place``, or the smallest member of a mapping that holds it. Where that was, if anywhere."""
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


_HOW_TO_BEGIN = "no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER, or a file (--config, M2M_CONFIG) with `issuers:`"


def _variable(place: Place, variables: Mapping[str, str]) -> str | None:
    if variables and place[:1] == ("issuers",):
        return next((variables[str(part)] for part in reversed(place) if str(part) in variables), None) or ", ".join(
            variables.values()
        )
    return None


def _place(location: Place) -> Place:
    """Where an error is: pydantic marks a mapping's key by a last part of its own."""
    return location[:-1] if location and location[-1] == "[key]" else location


def _told(kind: str, message: str, location: Place) -> str:
    """The error and a hint."""
    if kind == "extra_forbidden":
        known = {name for model in vars(models).values() for name in _fields(model)}
        if location[-1] in known:
            return "unknown key here: it belongs in another section"
        close = difflib.get_close_matches(str(location[-1]), sorted(known), n=1)
        return "unknown key" + (f": did you mean `{close[0]}`?" if close else "")
    if kind == "missing":
        return _HOW_TO_BEGIN if location == ("issuers",) else "is missing"
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
    """Refuses a key that is given twice: which would count?"""

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
        self.digest = b""
        if path is None:
            return
        try:
            data = path.read_bytes()
            self.digest = digest(data)
            text = data.decode("utf-8")
            self._root = yaml.compose(text, _Loader)
            content = yaml.load(text, _Loader)  # noqa: S506 - _Loader is a SafeLoader
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise ConfigError([f"{path}: is not UTF-8"]) from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            line, told = yaml_error.told(error)
            raise ConfigError([f"{path}{f':{line}' if line else ''}: {told}"]) from error
        if not isinstance(content, dict | None):
            raise ConfigError([f"{path}: must be a mapping, as in `issuers:`"])
        self.content = content or {}

    def at(self, place: Place) -> str:
        """``file:line: issuers[0].name``, as exact as the file allows."""
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


def main(arguments: list[str]) -> int:
    """Write the configuration to stdout, pickled, or its errors as JSON: ``verifier.config.read`` runs this."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(Path(arguments[0]) if arguments else None, read_environment())
    except ConfigError as error:
        sys.stdout.write(json.dumps(error.problems))
        return 2
    sys.stdout.buffer.write(pickle.dumps(config))
    return 0
