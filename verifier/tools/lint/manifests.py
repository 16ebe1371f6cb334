"""Reads Kubernetes YAML into Ingress objects, about which the rules report findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml

from verifier.config import yaml_errors
from verifier.proxies import nginx

PREFIX = "nginx.ingress.kubernetes.io/"
UNGUARDED = "no token is needed, and X-M2M headers reach the API as the client sent them"


@dataclass(frozen=True, slots=True)
class Finding:
    """One trap. ``rule`` is its name in docs/ingress.md."""

    rule: str
    file: str
    object: str
    """namespace/name; empty where the file cannot be read."""
    place: str
    """The annotation or the field."""
    why: str
    write: str
    """The line to write instead."""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.object, self.place) if part)
        return f"{where} [{self.rule}]\n  why:   {self.why}\n  write: {self.write}"


@dataclass(frozen=True, slots=True)
class Route:
    """One path of an Ingress."""

    host: str
    """Empty: every host that no other Ingress names."""
    path: str
    backend: str
    """namespace/service:port; empty where the backend is no Service."""


@dataclass(frozen=True, slots=True)
class Ingress:
    """What the rules read of one Ingress. ``tls`` has the hosts of each certificate."""

    file: str
    name: str
    annotations: Mapping[str, str]
    routes: tuple[Route, ...]
    tls: tuple[tuple[str, ...], ...]

    def annotation(self, key: str) -> str:
        """The value of an ingress-nginx annotation, empty where it is absent."""
        return self.annotations.get(PREFIX + key, "")

    @property
    def auth_url(self) -> SplitResult:
        """``auth-url``, without white space around it; empty parts where it is absent or no URL."""
        try:
            return urlsplit(self.annotation("auth-url").strip())
        except ValueError:  # an unbalanced [ in the host
            return urlsplit("")

    @property
    def guarded(self) -> bool:
        """Whether ``auth-url`` leads to the verifier: by its path, which is the verifier's own, or by its Service."""
        return self.policy is not None or "m2m-verifier" in self.auth_url.netloc

    @property
    def policy(self) -> str | None:
        """The policy that ``auth-url`` names, None where it leads elsewhere."""
        return nginx.policy_in(self.auth_url.path)

    @property
    def response_headers(self) -> list[str]:
        """The names in ``auth-response-headers``, as they are written."""
        return [name.strip() for name in self.annotation("auth-response-headers").split(",") if name.strip()]

    @property
    def hosts(self) -> list[str]:
        """Each host once, in file order."""
        return list(dict.fromkeys(route.host for route in self.routes))

    def finding(self, rule: str, place: str, why: str, write: str) -> Finding:
        """A finding about this Ingress."""
        return Finding(rule, self.file, self.name, place, why, write)

    def trap(self, rule: str, key: str, why: str, value: str | None = None) -> Finding:
        """A finding about an ingress-nginx annotation. ``value`` None: the line has to be deleted."""
        line = f'{PREFIX}{key}: "{value}"' if value is not None else f"(nothing: delete the {key} line)"
        return self.finding(rule, PREFIX + key, why, line)


def covers(pattern: str, host: str) -> bool:
    """Whether ``pattern``, a host name or a wildcard for one label, includes ``host``."""
    return pattern == host or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


def read(paths: Iterable[Path]) -> tuple[list[Ingress], list[Finding]]:
    """The Ingresses of all files, and a finding for each file or object that cannot be read."""
    ingresses: list[Ingress] = []
    findings: list[Finding] = []
    for path in paths:
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except OSError as error:
            findings.append(_unreadable(path, error.strerror or type(error).__name__))
        except UnicodeDecodeError:
            findings.append(_unreadable(path, "not UTF-8 text"))
        # PyYAML raises ValueError for an impossible date or number, RecursionError for deep nesting.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            line, problem = yaml_errors.describe(error)
            findings.append(_unreadable(path, f"line {line}: {problem}" if line else problem))
        else:
            for manifest in _manifests(documents):
                found = _ingress(manifest, str(path))
                findings += [found] if isinstance(found, Finding) else []
                ingresses += [found] if isinstance(found, Ingress) else []
    return ingresses, findings


def _unreadable(path: Path, why: str) -> Finding:
    return Finding("unreadable", str(path), "", "", why, "a readable file of Kubernetes YAML")


def _manifests(documents: Sequence[object]) -> Iterator[Mapping[str, Any]]:
    for document in map(_map, documents):
        # What `kubectl get -o yaml` prints; the API server nests no lists.
        is_list = _text(document.get("kind")).endswith("List")
        for manifest in map(_map, _list(document.get("items")) if is_list else [document]):
            if manifest.get("kind") == "Ingress":
                yield manifest


def _ingress(manifest: Mapping[str, Any], file: str) -> Ingress | Finding:
    metadata, spec = _map(manifest.get("metadata")), _map(manifest.get("spec"))
    namespace = _text(metadata.get("namespace"))
    name = f"{namespace}/{_text(metadata.get('name')) or '?'}".removeprefix("/")
    annotations = metadata.get("annotations") or {}
    if not isinstance(annotations, dict):
        return Finding("unreadable", file, name, "metadata.annotations", "not a mapping", 'annotations: {"…": "…"}')
    return Ingress(
        file,
        name,
        {_text(key): _text(value) for key, value in annotations.items()},
        tuple(_routes(spec, namespace)),
        tuple(tuple(map(_text, _list(_map(entry).get("hosts")))) for entry in _list(spec.get("tls"))),
    )


def _routes(spec: Mapping[str, Any], namespace: str) -> Iterator[Route]:
    default = {"backend": spec.get("defaultBackend")}
    rules = _list(spec.get("rules")) or ([{}] if "defaultBackend" in spec else [])
    for rule in map(_map, rules):
        for path in map(_map, _list(_map(rule.get("http")).get("paths")) or [default]):
            yield Route(_text(rule.get("host")), _text(path.get("path")) or "/", _backend(path, namespace))


def _backend(path: Mapping[str, Any], namespace: str) -> str:
    service = _map(_map(path.get("backend")).get("service"))
    port, name = _map(service.get("port")), _text(service.get("name"))
    number = _text(port.get("number")) or _text(port.get("name"))
    return f"{namespace}/{name}:{number}".removeprefix("/") if name else ""


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """A scalar as text. Kubernetes accepts strings only; an unquoted ``false`` is read as ``"false"``."""
    if isinstance(value, bool):
        return str(value).lower()
    # Never a collection: YAML aliases make one that is small to read and endless to print.
    return str(value) if isinstance(value, str | int | float) else ""
