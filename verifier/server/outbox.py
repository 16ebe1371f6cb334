"""Answers of one turn of the event loop leave together.

Writing to a socket wakes who waits at its other end, mostly on another core. A virtual machine has to leave the guest
for that, and the decision that follows finds caches and branch predictors cold.
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST = 16
"""Answers that wait for each other: the first of them must not wait for hundreds of decisions."""


class Outbox:
    """What the connections of one event loop have to write, in its order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write ``data`` before the loop waits for anything; close ``transport`` where there is none."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))
        if len(self._waiting) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Write everything now."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if transport.is_closing():  # its other end is gone
                continue
            if data:
                transport.write(data)
            else:
                transport.close()


class HeldTransport(asyncio.Transport):
    """A transport that writes and closes by way of an outbox. ``asyncio.Transport`` says what the methods mean."""

    __slots__ = ("_is_closed", "_outbox", "_transport")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        super().__init__()
        self._transport = transport
        self._outbox = outbox
        self._is_closed = False

    def write(self, data: Any) -> None:
        if data:
            self._outbox.add(self._transport, data)

    def close(self) -> None:
        if not self.is_closing():
            self._is_closed = True
            self._outbox.add(self._transport, b"")

    def is_closing(self) -> bool:
        return self._is_closed or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
