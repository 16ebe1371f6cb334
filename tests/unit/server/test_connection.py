"""The short way from a subrequest's bytes to its answer: the same as the long way's, and when it is not taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tests.unit.support import JWKS_URL, FakeFetch, SigningKey, jwks, loop_clock, settle
from verifier.app import create_app
from verifier.config import Config
from verifier.server.connection import AuthProtocol

Mint = Callable[..., bytes]
KEEP_ALIVE = 75
SCOPED = {"policies": {"api": {"scope": ["admin"]}, "watched": {"scope": ["admin"], "mode": "report"}}}


class Wire:
    """A client's end of one connection: what was written to it, and whether it was closed."""

    def __init__(self, service: Any, config: uvicorn.Config, state: ServerState) -> None:
        self.service = service
        self.written = b""
        self.closed = self.paused = False
        self.protocol = AuthProtocol(config, state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, _: Any = None) -> Any:
        return ("192.0.2.9", 1234) if name == "peername" else None

    def send(self, *requests: bytes) -> bytes:
        """What is answered in the same turn of the loop."""
        self.written = b""
        self.protocol.data_received(b"".join(requests))
        self.protocol._outbox.flush()
        return self.written

    async def settled(self, *requests: bytes) -> bytes:
        """What is answered once everything has run."""
        self.send(*requests)
        await settle()
        return self.written

    def counted(self) -> int:
        """Decisions so far."""
        return sum(self.service.metrics._decisions.values())


def ask(
    token: bytes | None = None,
    target: bytes = b"/verify",
    *headers: bytes,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    real_ip: bool = True,
) -> bytes:
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host: verifier", *headers]
    if token is not None:
        lines.append(b"Authorization: Bearer " + token)
    if real_ip:
        lines.append(b"X-Real-IP: 192.0.2.1")
    return b"\r\n".join([*lines, b"X-Original-Method: GET", b"X-Original-URL: https://api.example/db", b"", b""])


@contextlib.asynccontextmanager
async def serving(config: Config, fetch: FakeFetch) -> AsyncIterator[Callable[[], Wire]]:
    app = create_app(config, fetch=fetch, clock=loop_clock)
    async with app.router.lifespan_context(app):
        await settle()
        server = uvicorn.Config(app, http=AuthProtocol, ws="none", log_config=None, timeout_keep_alive=KEEP_ALIVE)
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        Wire(app.state.service, server, state)  # a server's first connection is made in another way than all others
        yield lambda: Wire(app.state.service, server, state)


@pytest.fixture
def config(make_config: Callable[..., Config], lab: dict[str, Any]) -> Config:
    return make_config(lab | SCOPED | {"audit": "off"})


async def test_a_servers_first_connection_and_all_others_begin_as_uvicorns_own_do(
    config: Config, fetch: FakeFetch
) -> None:
    async with serving(config, fetch) as connect:
        given = (connect().protocol.config, ServerState(), {"state": "of the application"}, asyncio.get_running_loop())
        own = vars(HttpToolsProtocol(*given))
        made = [vars(AuthProtocol(*given)) for _ in range(3)]

    assert AuthProtocol._alike[0] is given[1]
    for begun in made:
        assert {name for name in own if begun[name] is not own[name]} == {"parser", "pipeline"}
        assert begun.keys() == made[0].keys() > own.keys()
    for name in ("parser", "pipeline"):
        assert {type(begun[name]) for begun in made} == {type(own[name])}
        assert len({id(begun[name]) for begun in made}) == len(made)


async def test_what_another_uvicorn_gives_each_connection_is_not_shared(
    config: Config, fetch: FakeFetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = HttpToolsProtocol.__init__

    def begin_with_more(self: Any, *given: Any) -> None:
        begin(self, *given)
        self.more = []

    monkeypatch.setattr(HttpToolsProtocol, "__init__", begin_with_more)
    async with serving(config, fetch) as connect:
        first, second = vars(connect().protocol), vars(connect().protocol)

    assert first["more"] is not second["more"]


def statuses(written: bytes) -> list[int]:
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]


def lines(written: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, header lines in any order, body."""
    head, _, body = written.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, sorted(headers), body


@pytest.mark.parametrize(
    ("token", "target"),
    [
        pytest.param({}, b"/verify", id="allowed"),
        pytest.param({}, b"/verify/api", id="403"),
        pytest.param({}, b"/verify/watched", id="report mode"),
        pytest.param({}, b"/verify/nowhere", id="unknown policy"),
        pytest.param({}, b"/verify/", id="no policy"),
        pytest.param({}, b"/verify?scope=read&client=etl", id="narrowed"),
        pytest.param({}, b"/verify?scope=a%2Cb", id="an escape in the query"),
        pytest.param({}, b"/verify?colour=red", id="unknown parameter"),
        pytest.param({"exp": 1}, b"/verify", id="expired"),
        pytest.param(None, b"/verify", id="no token"),
    ],
)
async def test_both_ways_give_the_same_answer(
    config: Config, fetch: FakeFetch, mint: Mint, token: dict[str, Any] | None, target: bytes
) -> None:
    given = None if token is None else mint(**token)
    async with serving(config, fetch) as connect:
        short = connect().send(ask(given, target))
        long = await connect().settled(ask(given, target, real_ip=False))

    assert lines(short) == lines(long)
    assert b"date: today" in lines(short)[1]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ask(target=b"/health"), id="another path"),
        pytest.param(ask(target=b"/verifyx"), id="a path that begins alike"),
        pytest.param(ask(target=b"/verify/%61pi"), id="an escape in the path"),
        pytest.param(ask(target=b"/verify?x#y"), id="a fragment"),
        pytest.param(ask(target=b"/verify?" + b"x" * 2000), id="a very long auth URL"),
        pytest.param(ask(target=b"http://verifier/verify"), id="absolute form"),
        pytest.param(ask(method=b"POST"), id="another method"),
        pytest.param(ask(real_ip=False), id="no X-Real-IP"),
        pytest.param(ask(None, b"/verify", b"Content-Length: 3") + b"abc", id="a body"),
        pytest.param(ask(None, b"/verify", b"Connection: Upgrade", b"Upgrade: websocket"), id="an upgrade"),
    ],
)
async def test_what_is_no_plain_subrequest_goes_the_long_way_and_is_answered(
    config: Config, fetch: FakeFetch, request_: bytes
) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        assert wire.send(request_) == b""
        await settle()

    assert len(statuses(wire.written)) == 1
    assert wire.counted() <= 1


@pytest.mark.parametrize("target", [b"/verify/%61pi", b"/verify/api#x", b"http://verifier/verify/api"])
async def test_unusual_spellings_of_an_auth_url_mean_the_same(
    config: Config, fetch: FakeFetch, mint: Mint, target: bytes
) -> None:
    async with serving(config, fetch) as connect:
        answered = await connect().settled(ask(mint(), target))

    assert b"x-m2m-reason: insufficient_scope" in answered


async def test_a_header_may_be_spelled_in_any_case(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as connect:
        assert statuses(connect().send(ask(mint()).replace(b"Authorization", b"aUTHORIZATION"))) == [200]


async def test_two_tokens_are_refused(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as connect:
        assert b"malformed_token" in connect().send(ask(mint(), b"/verify", b"authorization: Bearer x"))


async def test_a_request_may_come_in_pieces(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as connect:
        wire, request = connect(), ask(mint())
        for at in range(len(request)):
            wire.protocol.data_received(request[at : at + 1])
        await settle()

    assert statuses(wire.written) == [200]


async def test_what_is_no_http_is_a_400(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        answered = wire.send(b"GET /verify HTTP/1.1\r\nno colon\r\n\r\n")

    assert (statuses(answered), wire.closed) == ([400], True)


# --- one after the other ---


async def test_requests_in_one_piece_are_answered_in_their_order(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as connect:
        answered = await connect().settled(
            ask(mint()), ask(), ask(mint(), b"/verify/api"), ask(target=b"/health"), ask(mint()), ask()
        )

    assert statuses(answered) == [200, 401, 403, 200, 200, 401]


async def test_a_token_that_waits_for_keys_holds_back_what_was_asked_behind_it(
    config: Config, fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey, mint: Mint
) -> None:
    token = other_signer.sign({"iss": "https://issuer.example"}).encode()
    new = jwks(signer, other_signer)
    async with serving(config, fetch) as connect:
        fetch.answers[JWKS_URL] = new
        wire = connect()
        assert wire.send(ask(token), ask(mint()), ask()) == b""
        await settle()
        answered, counted = wire.written, wire.counted()

    assert statuses(answered) == [401, 200, 401]
    assert b"invalid_claims" in answered.split(b"HTTP/1.1 ")[1]  # its key was fetched: it has no exp
    assert counted == 3


# --- keeping and closing ---


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        pytest.param(ask(), True, id="1.1"),
        pytest.param(ask(None, b"/verify", b"Connection: close"), False, id="1.1, close"),
        pytest.param(ask(version=b"1.0"), False, id="1.0"),
        pytest.param(ask(None, b"/verify", b"Connection: keep-alive", version=b"1.0"), False, id="1.0, keep-alive"),
        pytest.param(ask(None, b"/verify", b"Content-Length: 3") + b"abc", False, id="a body that nobody reads"),
    ],
)
async def test_a_connection_is_kept_or_closed_and_the_answer_says_so(
    config: Config, fetch: FakeFetch, request_: bytes, kept: bool
) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        answered = await wire.settled(request_)

    assert (wire.closed, b"connection: close\r\n" in answered) == (not kept, not kept)


async def test_an_idle_connection_is_closed_after_its_time_and_not_before(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.send(ask())
        await asyncio.sleep(50)
        wire.send(ask())
        await asyncio.sleep(KEEP_ALIVE - 1)
        assert not wire.closed
        await asyncio.sleep(2)
        assert wire.closed


async def test_the_long_way_counts_as_use_too(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.send(ask())
        await asyncio.sleep(50)
        await wire.settled(ask(target=b"/health"))
        await asyncio.sleep(KEEP_ALIVE - 1)
        assert not wire.closed


async def test_nothing_is_left_to_run_for_a_connection_that_has_ended(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.send(ask())
        wire.protocol.connection_lost(None)
        await asyncio.sleep(0)
        wire.closed = False
        await asyncio.sleep(2 * KEEP_ALIVE)

    assert not wire.closed
    assert wire.protocol not in wire.protocol.connections


async def test_at_the_end_a_kept_connection_is_closed_behind_its_answer(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.protocol.data_received(ask())
        wire.protocol.shutdown()
        await asyncio.sleep(0)

    assert (statuses(wire.written), wire.closed) == ([401], True)


async def test_a_client_that_reads_nothing_is_not_written_to_without_end(
    config: Config, fetch: FakeFetch, mint: Mint
) -> None:
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.send(ask())
        wire.protocol.pause_writing()
        assert await wire.settled(*[ask(mint())] * 10) == b""
        assert wire.paused  # and what it sends meanwhile stays with it
        wire.protocol.resume_writing()
        await settle()

    assert statuses(wire.written) == [200] * 10
    assert not wire.paused


async def test_without_an_address_from_nginx_the_peer_is_told(config: Config, fetch: FakeFetch) -> None:
    seen: list[str] = []
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.service.endpoint._observers = (
            lambda decided: seen.extend(request.remote_addr for request, _, __ in decided),
        )
        await wire.settled(ask(real_ip=False), ask())

    assert seen == ["192.0.2.9", "192.0.2.1"]


async def test_every_decision_of_a_turn_is_told_to_each_observer_once(
    config: Config, fetch: FakeFetch, mint: Mint
) -> None:
    told: list[tuple[str, str]] = []
    async with serving(config, fetch) as connect:
        wire = connect()
        wire.service.endpoint._observers = tuple(
            lambda decided, name=name: told.extend((name, decision.reason) for _, decision, __ in decided)
            for name in ("metrics", "audit")
        )
        await wire.settled(ask(mint()), ask(), ask(mint(), b"/verify/api"))
        await wire.settled(ask())

    reasons = ["ok", "missing_token", "insufficient_scope", "missing_token"]
    assert [told_reason for name, told_reason in told if name == "metrics"] == reasons
    assert [told_reason for name, told_reason in told if name == "audit"] == reasons
