"""The one way to read the time; tests pass their own."""

from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch."""
