"""Reads files of Kubernetes YAML into objects, about which the rules report findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from verifier.config import yaml_errors
from verifier.config.yaml_errors import Place as Place  # the controllers import it from here

_ANNOTATIONS = ("metadata", "annotations")

# Where a ConfigMap holds the configuration of Istio's mesh and of Traefik.
_EMBEDDED = ("mesh", "traefik.yaml", "traefik.yml")


@dataclass(frozen=True, slots=True)
class Finding:
    """One trap. ``rule`` is its name in docs/ingress.md."""

    rule: str
    file: str
    line: int
    """Counted from 1; 0 where the file cannot be read."""
    object: str
    """Kind and namespace/name; empty where the file holds no object."""
    place: str
    """The annotation or the field."""
    why: str
    write: str
    """The line to write instead."""

    def __str__(self) -> str:
        file = f"{self.file}:{self.line}" if self.line else self.file
        where = ": ".join(part for part in (file, self.object, self.place) if part)
        return f"{where} [{self.rule}]\n  why:   {self.why}\n  write: {self.write}"


@dataclass(frozen=True, slots=True)
class Object:
    """An object of Kubernetes, or a configuration without kind and name. No part of it has a type for sure."""

    file: str
    content: Any
    kind: str = ""
    group: str = ""
    namespace: str = ""
    name: str = ""
    offset: int = 0
    """Lines of the file before ``content``, where that is a text of its own."""
    node: yaml.Node | None = None
    """What ``content`` was made of: it has the lines."""

    @property
    def label(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}".removeprefix("/")

    def at(self, *place: str | int) -> Any:
        """The part at ``place``, None where there is none."""
        value = self.content
        for part in place:
            if isinstance(value, dict):
                value = value.get(part)
            else:
                value = value[part] if isinstance(value, list) and isinstance(part, int) else None
        return value

    def text(self, *place: str | int) -> str:
        """A scalar as text, else empty."""
        return text(self.at(*place))

    def mapping(self, *place: str | int) -> dict[Any, Any]:
        """A mapping; empty where there is none."""
        value = self.at(*place)
        return value if isinstance(value, dict) else {}

    def each(self, *place: str | int) -> Iterator[Place]:
        """The places of the items of a list."""
        value = self.at(*place)
        return ((*place, number) for number in range(len(value) if isinstance(value, list) else 0))

    def texts(self, *place: str | int) -> list[str]:
        """A list of scalars as texts. An annotation is one text, with commas."""
        if place[:2] == _ANNOTATIONS:
            return [name.strip() for name in self.text(*place).split(",") if name.strip()]
        return [self.text(*item) for item in self.each(*place)]

    def line(self, place: Place) -> int:
        """The line of a part; of the part that should hold it, where it is missing."""
        start = self.node.start_mark.line + 1 if self.node is not None else 0
        return self.offset + (yaml_errors.find(self.node, place)[1] or start)

    def finding(self, rule: str, place: Place, why: str, write: str) -> Finding:
        """A finding about this object."""
        shown = str(place[-1]) if place[:2] == _ANNOTATIONS else yaml_errors.written(place)
        return Finding(rule, self.file, self.line(place), f"{self.kind} {self.label}".strip(), shown, why, write)

    def trap(self, rule: str, place: Place, why: str, value: str | Sequence[str] | None = None) -> Finding:
        """A finding that is corrected by ``value`` at ``place``. None: the line has to be deleted."""
        key = place[-1]
        if value is None:
            return self.finding(rule, place, why, f"(nothing: delete the {str(key).rpartition('/')[2]} line)")
        listed = value if isinstance(value, str) else f"[{', '.join(value)}]"
        if place[:2] == _ANNOTATIONS:  # their values are texts
            listed = f'"{value if isinstance(value, str) else ", ".join(value)}"'
        return self.finding(rule, place, why, f"{key}: {listed}")


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of all files together: one file's route may bypass another's guard."""

    objects: tuple[Object, ...]

    def of(self, group: str | tuple[str, ...], *kinds: str) -> Iterator[Object]:
        """The objects of these kinds in an API group whose name ends so."""
        return (one for one in self.objects if one.kind in kinds and one.group.endswith(group))

    def sections(self, *key: str) -> Iterator[Object]:
        """What is not an object of its own: each mapping that has ``key``, inside a file or a ConfigMap."""
        return (one for one in self.objects if not one.group and one.at(*key) is not None)


def read(paths: Iterable[Path]) -> tuple[Manifests, list[Finding]]:
    """The objects of all files, and a finding for each file that cannot be read."""
    found = [one for path in paths for one in _read(path)]
    objects = tuple(one for one in found if isinstance(one, Object))
    return Manifests(objects), [one for one in found if isinstance(one, Finding)]


def text(value: object) -> str:
    """A scalar as text. Kubernetes accepts strings only; an unquoted ``false`` is read as ``"false"``."""
    if isinstance(value, bool):
        return str(value).lower()
    # Never a collection: YAML aliases make one that is small to read and endless to print.
    return str(value) if isinstance(value, str | int | float) else ""


def _unreadable(file: str, why: str, line: int = 0) -> Finding:
    return Finding("unreadable", file, line, "", "", why, "a readable file of Kubernetes YAML")


def _read(path: Path) -> Iterator[Object | Finding]:
    try:
        yield from _objects(Object(str(path), path.read_text(encoding="utf-8")))
    except OSError as error:
        yield _unreadable(str(path), error.strerror or type(error).__name__)
    except UnicodeDecodeError:
        yield _unreadable(str(path), "not UTF-8 text")


def _objects(source: Object) -> Iterator[Object | Finding]:
    """The objects in a text, and in the configurations that ConfigMaps hold."""
    try:
        documents = list(_documents(yaml.SafeLoader(source.content)))
    # PyYAML raises ValueError for an impossible date or number, RecursionError for deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line, problem = yaml_errors.describe(error)
        yield _unreadable(source.file, problem, line + source.offset if line else source.offset)
        return
    for node, content in documents:
        whole = replace(source, content=content, node=node)
        # What `kubectl get -o yaml` prints; the API server nests no lists.
        items = whole.each("items") if whole.text("kind").endswith("List") else [()]
        for item in items:
            one = as_object(replace(whole, content=whole.at(*item), node=yaml_errors.find(node, item)[0]))
            yield one
            for key in _EMBEDDED if one.kind == "ConfigMap" else ():
                if one.text("data", key):
                    inner = replace(one, content=one.text("data", key), offset=one.line(("data", key)))
                    yield from _objects(inner)


def as_object(document: Object) -> Object:
    """A document with the kind and name that it gives itself."""
    return replace(
        document,
        kind=document.text("kind") or document.kind,
        group=document.text("apiVersion").rpartition("/")[0],
        namespace=document.text("metadata", "namespace") or document.namespace,
        name=document.text("metadata", "name") or document.name or "?" * bool(document.text("kind")),
    )


def _documents(loader: yaml.SafeLoader) -> Iterator[tuple[yaml.Node | None, Any]]:
    while loader.check_node():
        node = loader.get_node()
        yield node, loader.construct_document(node)
