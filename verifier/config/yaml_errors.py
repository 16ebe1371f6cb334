"""One-line descriptions of errors in YAML texts."""

from __future__ import annotations


def describe(error: Exception) -> tuple[int | None, str]:
    """The line, counted from 1, where PyYAML names one, and the problem.

    ``error`` is a YAMLError, the ValueError of an impossible date or number, or a RecursionError.
    """
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split()) or type(error).__name__
    return (mark.line + 1 if mark else None), problem
