"""One connection: the fast path, its limits, and what uvicorn answers.

Client and server are the two ends of a socket pair in one event loop whose time jumps.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
import uvloop
from prometheus_client import Metric
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tests.unit.support import JWKS_URL, NOW, FakeFetch, SigningKey, claims, jwks, loop_clock, settle
from verifier.app import Application, create_app
from verifier.config import Config
from verifier.observe.batch import Batch, Observation
from verifier.server.connection import HEAD_TIME, IDLE_TIME, MAX_BATCH, MAX_HEAD, MAX_WAITING, UNREAD_TIME, Listener
from verifier.server.run import metrics_app

Mint = Callable[..., bytes]
Enter = Callable[[contextlib.AbstractAsyncContextManager[Any]], Any]
SCOPED = {
    "policies": {
        "api": {"scope": ["admin"]},
        "watched": {"scope": ["admin"], "mode": "report"},
        "ruled": {"rules": [{"path": "/db/**", "methods": ["GET", "HEAD", "QUERY"]}]},
    }
}
SWEEP = 1.0  # seconds by which a deadline may be late
SMUGGLED = b"GET /verify/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """The client's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.closed = False
        """Whether the server has sent its last byte."""

    def send(self, data: bytes) -> int:
        """Send as much as the socket takes. The number of bytes."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            return self.socket.send(data)
        return 0

    def read(self) -> bytes:
        """What has arrived since the last call."""
        received = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := self.socket.recv(1 << 20):
                received += data
            self.closed = True
        return received

    async def ask(self, *data: bytes) -> bytes:
        """Send all, and read what is answered without time passing."""
        left = b"".join(data)
        while True:
            taken = self.send(left)
            assert taken or not left, "the server takes no more"
            left = left[taken:]
            await settle()
            if not left:
                return self.read()


class Server(contextlib.AbstractAsyncContextManager["Server"]):
    """An application behind a listener, or behind uvicorn alone, and what was decided."""

    def __init__(self, app: Starlette, listener: Listener | None = None) -> None:
        self.listener: Any = listener
        self.observed: list[Observation] = []
        if listener is not None and listener.service is not None:
            listener.service.decided = Batch(loop_clock, self.observed.extend)
            self.flush = listener.service.decided.flush
        self._http: Any = listener or HttpToolsProtocol
        self._config = uvicorn.Config(app, http=self._http, ws="none", log_config=None, lifespan="off")
        self._config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]
        self._clients: list[socket.socket] = []

    async def connect(self, ends: tuple[socket.socket, socket.socket] | None = None, buffer: int = 0) -> Client:
        """A client; ``buffer`` is how many bytes the kernel keeps for it, 0: the default."""
        theirs, ours = ends or socket.socketpair()
        if buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        ours.setblocking(False)
        self._clients.append(theirs)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            lambda: self._http(config=self._config, server_state=self.state, app_state={}, _loop=loop), ours
        )
        return Client(theirs)

    def decided(self) -> list[str]:
        """The reasons of all decisions so far."""
        self.flush()
        return [one.decision.reason for one in self.observed]

    def shutdown(self) -> None:
        """As uvicorn does it."""
        for connection in list(self.state.connections):
            connection.shutdown()

    async def disconnects_after(self, seconds: float) -> None:
        """Assert that the last connection is closed ``seconds`` from now, and not before."""
        await asyncio.sleep(seconds - 1)
        assert self.state.connections
        await asyncio.sleep(1 + SWEEP)
        assert not self.state.connections

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing open."""
        for sock in self._clients:
            sock.close()
        await asyncio.sleep(2 * UNREAD_TIME)
        assert not self.state.connections
        assert not self.state.tasks


def metrics() -> Starlette:
    """The application of the metrics port, with more to read than the kernel keeps for a client."""

    async def collect() -> list[Metric]:
        return [Metric("series", "x" * 500_000, "counter")]

    return metrics_app(collect)


@pytest.fixture
def app(
    runner: asyncio.Runner, enter: Enter, make_config: Callable[..., Config], lab: dict[str, Any], fetch: FakeFetch
) -> Application:
    config = make_config(lab | SCOPED | {"audit": "off"})
    app = create_app(config, fetch=fetch, clock=lambda: NOW + runner.get_loop().time())
    enter(app.router.lifespan_context(app))
    runner.run(settle())
    return app


@pytest.fixture
def port() -> str:
    """What is served: ``http``, or ``metrics`` where a test is parametrized with it."""
    return "http"


@pytest.fixture
def backlog_gap() -> float:
    """Seconds; all answers are written in batches, unless a test is parametrized with another value."""
    return inf


@pytest.fixture
def server(enter: Enter, app: Application, port: str, backlog_gap: float) -> Server:
    served = Server(metrics(), Listener(None)) if port == "metrics" else Server(app, Listener(app.service, backlog_gap))
    return enter(served)


@pytest.fixture
def client(runner: asyncio.Runner, server: Server) -> Client:
    """The first client of ``server``."""
    return runner.run(server.connect())


@pytest.fixture
def new_key_token(signer: SigningKey) -> bytes:
    """A token with a ``kid`` that no key has: it waits while the keys are fetched."""
    return signer.sign(claims(), header={"kid": "new"}).encode()


def ask(
    token: bytes | None = None,
    target: bytes = b"/verify",
    *headers: bytes,
    method: bytes = b"GET",
    version: bytes = b"1.1",
) -> bytes:
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host: verifier", b"X-Real-IP: 192.0.2.1", *headers]
    if token is not None:
        lines.append(b"Authorization: Bearer " + token)
    return b"\r\n".join([*lines, b"X-Original-Method: GET", b"X-Original-URL: https://api.example/db", b"", b""])


def statuses(written: bytes) -> list[int]:
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]


def lines(written: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, header lines in any order, body."""
    head, _, body = written.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, sorted(headers), body


# --- answers ---

CASES = {
    "allowed": ({}, b"/verify"),
    "403": ({}, b"/verify/api"),
    "report mode": ({}, b"/verify/watched"),
    "unknown policy": ({}, b"/verify/nowhere"),
    "no policy": ({}, b"/verify/"),
    "narrowed": ({}, b"/verify?scope=read&client=etl"),
    "an escape in the query": ({}, b"/verify?scope=a%2Cb"),
    "unknown parameter": ({}, b"/verify?colour=red"),
    "expired": ({"exp": 1}, b"/verify"),
    "no token": (None, b"/verify"),
    "forward auth": ({}, b"/forward-auth/api"),
    "forward auth, narrowed": ({}, b"/forward-auth?scope=admin"),
    "ext authz": ({}, b"/ext-authz/default/a//b/%2e%2E/c%2Fd?scope=admin&x=%2f"),
    "ext authz without a path": ({}, b"/ext-authz/ruled"),
    "ext authz, no policy": ({}, b"/ext-authz//db"),
    "ext authz, rules": ({}, b"/ext-authz/ruled/db?scope=admin"),
    "ext authz, an ambiguous path": ({}, b"/ext-authz/ruled/db/../x"),
    "health": (None, b"/health"),
    "not found": (None, b"/nowhere"),
}


@pytest.mark.parametrize(("token", "target"), CASES.values(), ids=CASES)
async def test_the_application_alone_under_uvicorn_gives_the_same_answer(
    app: Application, client: Client, mint: Mint, token: dict[str, Any] | None, target: bytes
) -> None:
    request = ask(None if token is None else mint(**token), target, b"Connection: close")
    async with Server(app) as alone:
        answers = [lines(await one.ask(request)) for one in (client, await alone.connect())]

    assert answers[0] == answers[1]
    assert b"date: today" in answers[0][1]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(ask(target=b"/health"), 200, id="another path"),
        pytest.param(ask(target=b"/verifyx"), 404, id="a path that only begins like an auth path"),
        pytest.param(ask(target=b"/verify/%61pi"), 401, id="an escape in the path"),
        pytest.param(ask(target=b"/verify?" + b"x" * 2000), 403, id="a very long auth URL"),
        pytest.param(ask(target=b"http://verifier/verify"), 401, id="absolute form"),
        pytest.param(ask(method=b"POST"), 401, id="another method"),
        pytest.param(ask(method=b"OPTIONS", target=b"*"), 404, id="asterisk form"),
        pytest.param(ask(method=b"CONNECT", target=b"verifier:80"), 400, id="CONNECT"),
        pytest.param(ask(target=b"http://verifier/ext-authz/api/db"), 401, id="absolute form of ext authz"),
        pytest.param(ask(method=b"OPTIONS", target=b"/ext-authz"), 404, id="ext authz without a policy"),
        pytest.param(ask(method=b"POST", target=b"/forward-auth"), 401, id="forward auth with another method"),
        pytest.param(ask(None, b"/verify", b"Connection: Upgrade", b"Upgrade: websocket"), 401, id="an upgrade"),
        pytest.param(ask(None, b"/health", b"Content-Length: 99") + SMUGGLED, 200, id="a body"),
        pytest.param(ask(method=b"POST", target=b"/health") + SMUGGLED, 405, id="a method that is not allowed"),
        pytest.param(b"GET /health HTTP/1.1\r\n\r\n", 200, id="no header"),
    ],
)
async def test_any_other_request_is_answered_once_by_uvicorn_and_ends_the_connection(
    client: Client, request_: bytes, status: int
) -> None:
    answered = await client.ask(request_)

    assert statuses(answered) == [status]
    assert b"\r\nconnection: close\r\n" in answered
    assert client.closed


@pytest.mark.parametrize(
    ("usual", "unusual"),
    [(b"/api", b"/%61pi"), (b"/verify", b"http://verifier/verify"), (b"Authorization", b"aUTHORIZATION")],
)
async def test_unusual_spellings_of_an_auth_request_mean_the_same(
    client: Client, mint: Mint, usual: bytes, unusual: bytes
) -> None:
    answered = await client.ask(ask(mint(), b"/verify/api").replace(usual, unusual, 1))

    assert b"x-m2m-reason: insufficient_scope" in answered


async def test_a_proof_is_not_used_up_while_the_keys_of_its_token_are_fetched(
    client: Client, fetch: FakeFetch, other_signer: SigningKey, ec_signer: SigningKey
) -> None:
    token = other_signer.sign(claims(cnf={"jkt": ec_signer.jkt})).encode()
    proof = ec_signer.proof(token, "https://api.example/db", iat=NOW)
    request = ask(None, b"/verify", b"Authorization: DPoP " + token, b"DPoP: " + proof)
    fetch.answers[JWKS_URL] = jwks(other_signer)
    answered = await client.ask(request) + await client.ask(request)

    assert (statuses(answered), len(fetch.asked)) == ([200, 401], 2)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"QUERY"])
async def test_ext_authz_asks_with_any_method_and_the_connection_stays_open(
    client: Client, mint: Mint, method: bytes
) -> None:
    request = ask(mint(), b"/ext-authz/ruled/db", b"Content-Length: 0", method=method)
    allowed = [await client.ask(request) for _ in range(2)]
    refused = await client.ask(ask(None, b"/ext-authz/ruled/db", method=method))

    assert ([*map(statuses, allowed)], statuses(refused), client.closed) == ([[200], [200]], [401], False)
    body = refused.partition(b"\r\n\r\n")[2]
    assert (body == b"", b"content-length: 0" in refused) == (method == b"HEAD", False)


async def test_a_head_may_come_in_pieces(client: Client, mint: Mint) -> None:
    request = ask(mint())
    answered = [await client.ask(request[at : at + 1]) for at in range(len(request))]

    assert statuses(b"".join(answered)) == [200]
    assert answered[-1]


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n" * 3, b"\r\n" * 100_000], ids=["one", "three", "200 KB"])
async def test_empty_lines_before_a_request_are_ignored(client: Client, empty: bytes) -> None:
    answered = [await client.ask(data) for data in (empty, ask(), empty, empty[:1], b"\n" + ask())]

    assert statuses(b"".join(answered)) == [401, 401]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /verify HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /verify HTTP/9.9\r\n\r\n",
        b"GET /verify?x#y HTTP/1.1\r\n\r\n",
        b"GET /verify HTTP/1.1\nHost: x\n\nGET /verify HTTP/1.1\r\n\r\n",
        b"GET /verify HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /verify HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /verify HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
        b"GET /verify HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=range(9),
)
async def test_what_is_no_http_is_a_400_and_ends_the_connection(server: Server, client: Client, garbage: bytes) -> None:
    answered = await client.ask(garbage, SMUGGLED)

    assert (statuses(answered), client.closed, server.decided()) == ([400], True, [])


async def test_requests_sent_together_are_answered_and_observed_once_and_in_their_order(
    server: Server, client: Client, mint: Mint
) -> None:
    answered = await client.ask(ask(mint()), ask(), ask(mint(), b"/verify/api"), ask(target=b"/health"))

    assert statuses(answered) == [200, 401, 403, 200]
    assert server.decided() == ["ok", "missing_token", "insufficient_scope"]
    assert {one.time for one in server.observed} == {NOW}


@pytest.mark.parametrize(
    ("backlog_gap", "requests", "unwritten"),
    [
        pytest.param(0.0, 3, [0, 0, 0], id="at once"),
        pytest.param(inf, 3, [1, 2, 3], id="in a batch"),
        pytest.param(inf, MAX_BATCH + 2, [*range(1, MAX_BATCH), 0, 1, 2], id="in two batches"),
    ],
)
async def test_answers_are_written_in_bounded_batches_if_requests_are_waiting(
    server: Server, client: Client, requests: int, unwritten: list[int]
) -> None:
    answered: list[int] = []
    seen: list[int] = []

    class Decided(Batch):
        def add(self, *_: Any) -> None:
            answered.extend(statuses(client.read()))
            seen.append(len(seen) + 1 - len(answered))

    server.listener.service.decided = Decided(loop_clock, server.observed.extend)
    answered += statuses(await client.ask(*[ask()] * requests))

    assert (seen, answered) == (unwritten, [401] * requests)


async def test_an_answer_does_not_overtake_a_batch() -> None:
    listener = Listener(None, backlog_gap=1.0)
    listener.loop = asyncio.get_running_loop()
    theirs, ours = socket.socketpair()
    with theirs:
        transport, _ = await listener.loop.connect_accepted_socket(asyncio.Protocol, ours)
        for start in (2.0, 2.5, 9.0):
            listener.busy_until = 2.0
            listener.write(transport, b"%d," % start, start)
        await settle()
        assert Client(theirs).read() == b"2,2,9,"
    await settle()


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop])
async def test_a_batch_is_written_to_the_clients_that_are_still_there() -> None:
    listener = Listener(None, backlog_gap=inf)
    listener.loop = loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(3)]
        clients = [Client(stack.enter_context(theirs)) for theirs, _ in pairs]
        transports = [(await loop.connect_accepted_socket(asyncio.Protocol, ours))[0] for _, ours in pairs]
        transports[1].abort()
        await asyncio.sleep(0.01)  # now uvloop's transport is closed: to write to it raises
        for transport in transports:
            stack.callback(transport.abort)
            listener.write(transport, b"answer", 0.0)
        listener.write_batch()
        assert [client.read() for client in clients] == [b"answer", b"", b"answer"]


@pytest.mark.parametrize("backlog_gap", [0.0])
async def test_the_server_is_busy_until_it_has_decided(server: Server, client: Client) -> None:
    before = perf_counter()
    await client.ask(ask())

    assert before < server.listener.busy_until < perf_counter()


def test_the_server_is_busy_until_a_batch_is_written() -> None:
    listener = Listener(None)
    before = perf_counter()
    listener.write_batch()

    assert before < listener.busy_until < perf_counter()


@pytest.mark.parametrize(
    ("last", "status"),
    [
        pytest.param(ask(None, b"/verify", b"Connection: close"), 401, id="an answer that closes"),
        pytest.param(b"no HTTP\r\n\r\n", 400, id="a refusal"),
        pytest.param(ask(method=b"CONNECT", target=b"verifier:80"), 400, id="an answer of uvicorn's"),
    ],
)
async def test_a_batch_is_written_before_what_closes_the_connection(
    client: Client, mint: Mint, last: bytes, status: int
) -> None:
    answered = await client.ask(ask(mint()), last)

    assert statuses(answered) == [200, status]


@pytest.mark.parametrize("end", ["the client's", "the server's"])
async def test_a_batch_is_written_before_the_end_of_the_connection(server: Server, client: Client, end: str) -> None:
    (connection,) = server.state.connections
    connection.data_received(ask())
    if end == "the client's":
        assert not connection.eof_received()
    else:
        server.shutdown()

    assert statuses(client.read()) == [401]


async def test_a_token_that_waits_for_keys_delays_later_requests_of_its_connection_alone(
    server: Server, client: Client, fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey, mint: Mint
) -> None:
    token = other_signer.sign({"iss": "https://issuer.example"}).encode()
    other = await server.connect()
    fetch.answers[JWKS_URL] = jwks(signer, other_signer)
    fetch.hang()
    assert await client.ask(ask(token), ask(mint()), ask()) == b""
    assert await client.ask(ask(mint(), b"/verify/api")) == b""
    assert statuses(await other.ask(ask(mint()))) == [200]
    fetch.open.set()
    answered = await client.ask()

    assert statuses(answered) == [401, 200, 401, 403]
    assert b"invalid_claims" in answered.split(b"HTTP/1.1 ")[1]  # its key was fetched: it has no exp
    assert server.decided() == ["ok", "invalid_claims", "ok", "missing_token", "insufficient_scope"]


async def test_what_a_client_sends_while_it_waits_for_keys_is_not_read(
    client: Client, fetch: FakeFetch, new_key_token: bytes
) -> None:
    fetch.hang()
    await client.ask(ask(new_key_token))

    assert await flood(client, b"x" * 65536) < 1_000_000


async def test_a_client_that_leaves_while_it_waits_for_keys_is_still_counted(
    server: Server, client: Client, fetch: FakeFetch, new_key_token: bytes
) -> None:
    fetch.hang()
    await client.ask(ask(new_key_token))
    client.socket.close()
    await asyncio.sleep(SWEEP + 10)

    assert server.decided() == ["unknown_key"]
    assert not server.state.connections


async def test_without_an_address_from_nginx_the_peer_is_the_remote_address(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        client = await server.connect((theirs, listening.accept()[0]))
    await client.ask(ask().replace(b"X-Real-IP", b"X-Other"), ask())
    server.flush()

    assert [one.remote_addr for one in server.observed] == ["127.0.0.1", "192.0.2.1"]


# --- bodies ---


@pytest.mark.parametrize(
    ("announced", "body"),
    [
        pytest.param(b"Content-Length: %d" % len(SMUGGLED), SMUGGLED, id="Content-Length"),
        pytest.param(b"Content-Length: 0", SMUGGLED, id="Content-Length 0"),
        pytest.param(b"Transfer-Encoding: chunked", b"0\r\nAuthorization: Bearer x\r\n\r\n", id="trailers"),
        pytest.param(b"Transfer-Encoding: chunked", b"0\r\n\r\n" + SMUGGLED, id="a request after the last chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\nTrailer: Authorization", SMUGGLED, id="no chunk at all"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["with the head", "after the answer"])
async def test_a_request_with_a_body_is_answered_from_its_head_and_is_the_last(
    server: Server, client: Client, announced: bytes, body: bytes, together: bool
) -> None:
    head = ask(None, b"/verify", announced)
    answered = await client.ask(head + body) if together else await client.ask(head) + await client.ask(body)
    await client.ask(SMUGGLED)

    assert b"connection: close\r\n" in answered
    assert b"x-m2m-reason: missing_token" in answered
    assert (len(statuses(answered)), server.decided(), client.closed) == (1, ["missing_token"], True)


async def test_a_client_that_goes_on_sending_its_body_is_disconnected_after_10_seconds(
    server: Server, client: Client
) -> None:
    await client.ask(ask(None, b"/verify", b"Content-Length: 999999999"))
    for _ in range(9):
        assert client.send(b"x" * 10_000) == 10_000
        await asyncio.sleep(1)
    await server.disconnects_after(1)

    assert client.send(b"x") == 0


# --- keeping and closing ---


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        pytest.param(ask(), True, id="1.1"),
        pytest.param(ask(None, b"/verify", b"Connection: close"), False, id="1.1, close"),
        pytest.param(ask(version=b"1.0"), False, id="1.0"),
        pytest.param(b"GET /verify\r\n\r\n", False, id="0.9"),
        pytest.param(ask(None, b"/verify", b"Connection: keep-alive", version=b"1.0"), False, id="1.0, keep-alive"),
    ],
)
async def test_a_connection_is_kept_or_closed_and_the_answer_says_so(
    client: Client, request_: bytes, kept: bool
) -> None:
    answered = await client.ask(request_, ask())

    assert len(statuses(answered)) == 1 + kept
    assert (client.closed, b"connection: close\r\n" in answered) == (not kept, not kept)


async def test_a_client_that_sends_no_more_still_gets_every_answer(client: Client, mint: Mint) -> None:
    client.send(ask(mint()) + ask() + ask(target=b"/health"))
    client.socket.shutdown(socket.SHUT_WR)

    assert statuses(await client.ask()) == [200, 401, 200]
    assert client.closed


# --- limits, on both ports ---


PORTS = pytest.mark.parametrize("port", ["http", "metrics"])


@PORTS
@pytest.mark.parametrize(
    ("begin", "size"),
    [
        pytest.param(b"GET /", MAX_HEAD, id="line"),
        pytest.param(b"GET /verify HTTP/1.1\r\nX-A: ", MAX_HEAD, id="header"),
        pytest.param(b"GET /verify HTTP/1.1\r\nX-A: ", 8 * MAX_HEAD, id="much more"),
    ],
)
async def test_a_head_over_64_kib_is_a_431_however_it_ends(
    server: Server, client: Client, begin: bytes, size: int
) -> None:
    answered = await client.ask(begin, b"x" * (size - len(begin) + 1), b"\r\n\r\n", SMUGGLED)

    assert (statuses(answered), client.closed) == ([431], True)
    await server.disconnects_after(UNREAD_TIME)


async def test_a_head_of_64_kib_is_answered(client: Client) -> None:
    shortest = ask(None, b"/verify", b"X-Padding: ")
    longest = ask(None, b"/verify", b"X-Padding: " + b"x" * (MAX_HEAD - len(shortest)))
    answered = await client.ask(longest, longest[:100])
    answered += await client.ask(longest[100:])
    answered += await client.ask(longest.replace(b"x", b"xx", 1))

    assert statuses(answered) == [401, 401, 431]


@PORTS
@pytest.mark.parametrize("begin", [b"", b"GET", b"GET /verify HTTP/1.1\r\nHost: x\r\n", b"\r\n"], ids=repr)
async def test_the_first_request_must_be_complete_10_seconds_after_connecting(client: Client, begin: bytes) -> None:
    for _ in range(int(HEAD_TIME)):
        assert await client.ask(begin) == b""  # more of it wins no time
        assert not client.closed
        await asyncio.sleep(1)
    await asyncio.sleep(SWEEP)

    assert statuses(client.read()) == ([408] if begin.startswith(b"GET") else [])
    assert client.closed


async def test_a_later_request_must_be_complete_10_seconds_after_its_first_byte(client: Client) -> None:
    request = ask()
    await client.ask(request)
    await asyncio.sleep(30)
    for wait, complete in ((9, True), (9, True), (9, False)):
        await client.ask(request[:10])
        await asyncio.sleep(wait)
        if complete:
            assert statuses(await client.ask(request[10:])) == [401]
    assert not client.closed
    await asyncio.sleep(1 + SWEEP)

    assert statuses(client.read()) == [408]
    assert client.closed


async def test_a_request_that_began_together_with_a_complete_one_has_10_seconds_too(client: Client) -> None:
    assert statuses(await client.ask(ask(), ask()[:50])) == [401]
    await asyncio.sleep(HEAD_TIME + SWEEP)

    assert statuses(client.read()) == [408]


async def test_an_idle_connection_is_closed_after_75_seconds_and_not_before(server: Server, client: Client) -> None:
    for _ in range(3):
        assert statuses(await client.ask(ask())) == [401]
        await asyncio.sleep(IDLE_TIME - 1)
        assert (client.read(), client.closed) == (b"", False)
    await server.disconnects_after(1)

    assert (client.read(), client.closed) == (b"", True)


def test_nginx_closes_an_idle_connection_before_we_do() -> None:
    assert IDLE_TIME > 60


async def flood(client: Client, request: bytes) -> int:
    """Send requests without reading an answer, until the server takes no more. The bytes that it took."""
    sent = 0
    left = b""
    refused = 0
    while refused < 3:
        left = left or request
        taken = client.send(left)
        left, sent, refused = left[taken:], sent + taken, 0 if taken else refused + 1
        await settle()
        assert sent < 10_000_000, "it takes everything"
    return sent


async def test_a_client_that_does_not_read_its_answers_is_disconnected_after_10_seconds(server: Server) -> None:
    await flood(await server.connect(buffer=4096), ask() * 100)
    before = len(server.decided())
    await server.disconnects_after(UNREAD_TIME)

    assert len(server.decided()) == before


async def test_a_client_that_sends_no_more_and_does_not_read_is_disconnected_after_10_seconds(server: Server) -> None:
    client = await server.connect(buffer=4096)
    client.send(ask() * 100)  # the answers fill the socket, but not the transport's buffer
    client.socket.shutdown(socket.SHUT_WR)
    await server.disconnects_after(UNREAD_TIME)


@pytest.mark.parametrize("port", ["metrics"])
async def test_a_client_that_does_not_read_metrics_is_disconnected_after_10_seconds(server: Server) -> None:
    client = await server.connect(buffer=4096)
    client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    await server.disconnects_after(UNREAD_TIME)


async def test_a_client_that_reads_late_gets_all_its_answers_in_order(server: Server, mint: Mint) -> None:
    client = await server.connect(buffer=4096)
    left, answered = b"".join([ask(), ask(mint()), ask(mint(), b"/verify/api")] * 200), b""
    left = left[client.send(left) :]
    await asyncio.sleep(UNREAD_TIME - 1)
    while len(statuses(answered)) < 600:
        left = left[client.send(left) :]
        await settle()
        answered += client.read()
    await asyncio.sleep(IDLE_TIME - 1)
    client.read()

    assert statuses(answered) == [401, 200, 403] * 200
    assert not client.closed


@pytest.mark.parametrize("kind", ["half a head", "waiting for keys", "not reading"])
async def test_what_waits_in_all_connections_is_bounded_and_who_sends_a_whole_request_is_answered(
    server: Server, fetch: FakeFetch, new_key_token: bytes, kind: str
) -> None:
    waiting = b"x" * (MAX_HEAD - 1)
    begin = {"half a head": waiting, "waiting for keys": ask(new_key_token) + waiting, "not reading": ask() * 400}[kind]
    fetch.hang()
    clients = [await server.connect(buffer=4096) for _ in range(MAX_WAITING // MAX_HEAD + 50)]
    for client in clients:
        client.send(begin)
        await settle()
    assert len(server.state.connections) <= MAX_WAITING // MAX_HEAD
    fetch.open.set()
    assert statuses(await (await server.connect()).ask(ask())) == [401]

    await asyncio.sleep(UNREAD_TIME + SWEEP)
    more = [await server.connect() for _ in range(100)]  # what was counted is free again
    for client in more:
        await client.ask(waiting)
    assert len(server.state.connections) >= len(more)


# --- the end ---


async def test_at_the_end_idle_connections_are_closed_and_a_new_one_has_a_second_for_its_request(
    server: Server,
) -> None:
    idle, new, silent = [await server.connect() for _ in range(3)]
    await idle.ask(ask())
    await new.ask(ask()[:20])
    server.shutdown()
    answered = await new.ask(ask()[20:])
    assert (idle.read(), idle.closed) == (b"", True)
    assert statuses(answered) == [401]
    assert b"connection: close\r\n" in answered
    assert new.closed
    assert (silent.read(), silent.closed) == (b"", False)
    await asyncio.sleep(1 + SWEEP)

    assert (silent.read(), silent.closed) == (b"", True)


async def test_at_the_end_a_client_that_closes_nothing_is_not_waited_for(server: Server) -> None:
    half, refused, unread = [await server.connect(buffer=4096) for _ in range(3)]
    await half.ask(ask()[:20])
    await refused.ask(ask(None, b"/verify", b"Content-Length: 5"))
    await flood(unread, ask() * 100)
    server.shutdown()
    await asyncio.sleep(2 * (1 + SWEEP))

    assert statuses(half.read()) == [408]
    assert not server.state.connections


async def test_at_the_end_requests_under_way_are_finished(
    server: Server, client: Client, fetch: FakeFetch, new_key_token: bytes
) -> None:
    fetch.hang()
    by_uvicorn = await server.connect()
    await client.ask(ask(new_key_token))
    await by_uvicorn.ask(ask(new_key_token, b"http://verifier/verify"))
    server.shutdown()
    assert server.state.tasks
    fetch.open.set()

    for one in (client, by_uvicorn):
        answered = await one.ask()
        assert b"unknown_key" in answered
        assert b"connection: close\r\n" in answered
        assert one.closed
    assert not server.state.tasks


# --- what is left of a connection ---


async def test_one_timer_serves_all_connections_however_many_come_and_go(app: Application) -> None:
    loop = Mock(time=lambda: 0.0)
    listener, server_config, state = Listener(app.service), uvicorn.Config(app), ServerState()
    for _ in range(5):
        for _ in range(10):
            connection = listener(server_config, state, {}, loop)
            connection.connection_made(asyncio.Transport())
            connection.connection_lost(None)
        loop.call_later.assert_called_once()
        tick = loop.call_later.call_args.args[1]
        loop.reset_mock()
        tick()
