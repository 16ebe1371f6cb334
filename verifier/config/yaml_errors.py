"""One-line descriptions of errors in YAML texts, and their places."""

from __future__ import annotations

import yaml

Place = tuple[str | int, ...]
"""Keys and indexes that lead to a part of a document."""


def describe(error: Exception) -> tuple[int | None, str]:
    """The line, counted from 1, where PyYAML names one, and the problem.

    ``error`` is a YAMLError, the ValueError of an impossible date or number, or a RecursionError.
    """
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split()) or type(error).__name__
    return (mark.line + 1 if mark else None), problem


def find(root: yaml.Node | None, place: Place) -> tuple[yaml.Node | None, int | None]:
    """A part and its line, counted from 1. A missing part is None, and has the line of what should hold it.

    The root has no line.
    """
    line = None
    for part in place:
        root, line = _children(root).get(str(part), (None, line))
    return root, line


def written(place: Place) -> str:
    """A place as in ``issuers[0].name``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _children(node: yaml.Node | None) -> dict[str, tuple[yaml.Node, int]]:
    """The parts of a list or mapping, and their lines."""
    if isinstance(node, yaml.SequenceNode):
        return {str(place): (child, child.start_mark.line + 1) for place, child in enumerate(node.value)}
    if isinstance(node, yaml.MappingNode):
        return {key.value: (child, key.start_mark.line + 1) for key, child in node.value}
    return {}
