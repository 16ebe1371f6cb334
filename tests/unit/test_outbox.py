"""What connections write in one turn of the loop leaves at its end, in order, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

from verifier.server.outbox import MOST, HeldTransport, Outbox


class Wire:
    """The real transport: what was done to it."""

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self.log = log
        self.name = name
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.log.append((self.name, data))

    def close(self) -> None:
        self.log.append((self.name, b"closed"))
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Ends:
    """Two connections that share an outbox."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes]] = []
        self.outbox = Outbox()
        self.wire = Wire(self.log, "a")
        self.a, self.b = self._held(self.wire), self._held(Wire(self.log, "b"))

    def _held(self, wire: Any) -> HeldTransport:
        return HeldTransport(wire, self.outbox)


async def test_what_is_written_in_one_turn_of_the_loop_leaves_at_its_end_in_its_order() -> None:
    ends = Ends()
    ends.a.write(b"1")
    ends.b.write(b"2")
    ends.a.write(b"3")
    assert ends.log == []
    await asyncio.sleep(0)

    assert ends.log == [("a", b"1"), ("b", b"2"), ("a", b"3")]


async def test_the_next_turn_has_its_own_end() -> None:
    ends = Ends()
    for data in (b"1", b"2"):
        ends.a.write(data)
        await asyncio.sleep(0)

    assert ends.log == [("a", b"1"), ("a", b"2")]


async def test_only_so_many_wait_for_each_other() -> None:
    ends = Ends()
    for _ in range(MOST + 1):
        ends.a.write(b"x")
    assert len(ends.log) == MOST
    await asyncio.sleep(0)

    assert len(ends.log) == MOST + 1


async def test_a_connection_is_closed_behind_what_was_written_to_it() -> None:
    ends = Ends()
    ends.a.write(b"1")
    ends.a.close()
    assert ends.a.is_closing()
    assert not ends.wire.closed
    await asyncio.sleep(0)

    assert ends.log == [("a", b"1"), ("a", b"closed")]


async def test_a_connection_is_closed_once() -> None:
    ends = Ends()
    ends.a.close()
    ends.a.close()
    await asyncio.sleep(0)

    assert ends.log == [("a", b"closed")]


async def test_a_connection_whose_other_end_is_gone_keeps_nothing_from_the_others() -> None:
    ends = Ends()
    ends.a.write(b"1")
    ends.b.write(b"2")
    ends.wire.closed = True
    await asyncio.sleep(0)

    assert ends.a.is_closing()
    assert ends.log == [("b", b"2")]


async def test_nothing_to_write_is_no_end() -> None:
    ends = Ends()
    ends.a.write(b"")
    await asyncio.sleep(0)

    assert ends.log == []
