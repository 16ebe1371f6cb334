"""The hostile table once more, as bytes on a connection: the short way must refuse whatever the application refuses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
import uvicorn
from uvicorn.server import ServerState

from verifier.server.connection import Listener

from .cases import Case
from .test_hostile import TABLE
from .world import STATUS, World

# What an HTTP parser takes as it stands: it strips white space, and refuses the rest.
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_TARGET = re.compile(rb"[!-~]+")
ROWS = [case for case in TABLE if case.world == "main"]


class Wire:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.answered = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data
        self.answered.set()

    def close(self) -> None:
        pass

    write_eof = pause_reading = resume_reading = close

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _: str, __: object = None) -> None:
        return None


def subrequest(case: Case) -> bytes | None:
    """The bytes of a row, None where no HTTP parser would hand them on like that."""
    asked, token = case.request, case.encode()
    # The table has the path as the application sees it, decoded.
    target = quote(asked.path, safe="/!$&'()*+,;=:@").encode() + (b"?" + asked.query if asked.query else b"")
    pairs = [] if token is None else [(b"authorization", form.replace(b"%s", token)) for form in asked.authorization]
    pairs += [] if asked.url is None else [(b"x-original-url", asked.url)]
    pairs += [] if asked.method is None else [(b"x-original-method", asked.method)]
    pairs += [*asked.headers, (b"x-real-ip", b"192.0.2.1")]
    if not _TARGET.fullmatch(target) or not all(_VALUE.fullmatch(value) for _, value in pairs):
        return None
    lines = [b"GET %b HTTP/1.1" % target, *(b"%b: %b" % pair for pair in pairs), b"", b""]
    return b"\r\n".join(lines)


async def answer(world: World, sent: bytes) -> tuple[bool, int, str]:
    """Whether the short way was taken, status and reason."""
    config = uvicorn.Config(world.app, ws="none", log_config=None)
    wire = Wire()
    protocol = Listener(world.service)(config, ServerState(), {})
    protocol.connection_made(wire)  # type: ignore[arg-type]
    protocol.data_received(sent)
    short = bool(wire.written)
    await asyncio.wait_for(wire.answered.wait(), 10)
    protocol.connection_lost(None)
    reason = re.search(rb"x-m2m-reason: (\w+)", wire.written)
    return short, int(wire.written[9:12]), reason[1].decode() if reason else "ok"


@pytest.fixture(scope="module")
def answers(worlds: Callable[[str], World]) -> dict[str, tuple[bool, int, str]]:
    """What came back on a connection, by the row's name."""
    world = worlds("main")
    sent = {case.name: request for case in ROWS if (request := subrequest(case)) is not None}

    async def run() -> dict[str, tuple[bool, int, str]]:
        return {name: await answer(world, request) for name, request in sent.items()}

    return world._runner.run(run())


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_on_a_connection_a_request_meets_the_same_reason(case: Case, answers: dict[str, tuple[bool, int, str]]) -> None:
    told = answers.get(case.name)
    if told is None:
        assert subrequest(case) is None
    else:
        assert told[1:] == (STATUS[case.reason], case.reason)


def test_nearly_all_rows_take_the_short_way(answers: dict[str, tuple[bool, int, str]]) -> None:
    assert len(answers) >= 0.95 * len(ROWS)
    assert sum(short for short, _, __ in answers.values()) >= 0.9 * len(answers)
