"""Decisions wait here for a moment and are counted and logged in batches.

Run after each answer, that code finds the processor's caches cold and evicts what decides the next request: it takes
three times as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verifier.clock import Clock
from verifier.decision import Decision
from verifier.request import AuthRequest

BATCH = 64  # decisions that are handed over as soon as the answers of this turn of the loop are sent
MAX_PENDING = 128  # decisions; each holds less than one request head of 64 KiB, so 8 MiB in all
INTERVAL = 0.05  # seconds that a decision waits at most


@dataclass(slots=True)
class Observation:
    """A decision and what is logged of its request. The request itself is not kept: it holds the token."""

    time: float
    """Seconds since the epoch."""
    method: str
    url: bytes
    request_id: str
    traceparent: bytes
    remote_addr: str
    decision: Decision
    seconds: float
    """The time from the request's headers to its answer."""


class Batch:
    """Calls each of ``observers`` with the decisions of one batch."""

    def __init__(self, clock: Clock, *observers: Callable[[Sequence[Observation]], None]) -> None:
        self._clock = clock
        self._observers = observers
        self._pending: list[Observation] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: AuthRequest, decision: Decision, seconds: float) -> None:
        """Queue one decision."""
        self._pending.append(
            Observation(
                self._clock(),
                request.method,
                request.url,
                request.request_id,
                request.traceparent,
                request.remote_addr,
                decision,
                seconds,
            )
        )
        pending = len(self._pending)
        if pending == 1 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._on_timer)
        elif pending == BATCH:
            asyncio.get_running_loop().call_soon(self.flush)
        elif pending >= MAX_PENDING:
            self.flush()

    def flush(self) -> None:
        """Hand over what is pending now."""
        pending, self._pending = self._pending, []
        if pending:
            for observe in self._observers:
                observe(pending)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()
