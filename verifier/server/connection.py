"""One connection: its limits, the fast path for auth requests, and uvicorn for everything else.

The input is cut at the empty line, and each head is parsed by itself. An auth request is answered here: an ASGI scope,
a task and messages would together take longer than the decision. Any other request goes, as one head, to a protocol of
uvicorn's that writes to the same transport; the limits of the connection stay in force.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from verifier.app import Service
from verifier.identity import header_lines
from verifier.proxies import routes
from verifier.reasons import Refresh
from verifier.request import AuthRequest
from verifier.server.head import Head

MAX_HEAD = 64 * 1024  # bytes of request line and headers
UNREAD_BYTES = 64 * 1024  # what a connection counts for whose client does not read: asyncio's high-water mark
MAX_WAITING = 8 * 1024 * 1024  # bytes that wait in all connections together; a connection that exceeds it is closed
HEAD_TIME = 10.0  # seconds for the first request after connecting, for a later one after its first byte
IDLE_TIME = 75.0  # seconds; nginx keeps an idle connection for 60 and must be the one that closes it
UNREAD_TIME = 10.0  # seconds for a client to read its answers
LAST_REQUEST_TIME = 1.0  # seconds, while the server stops, for the request of a new connection and to read its answer
TICK = 0.5  # seconds between two checks of all deadlines
MAX_BATCH = 16  # answers that are written together; the first of them waits for the decisions of the others
BACKLOG_GAP = 20e-6  # seconds; a request that is read this soon after the last decision has waited for it


class Listener:
    """What the connections of one server share; uvicorn calls it to make the protocol of each.

    ``service`` None: there are no auth requests here, as on the metrics port.
    """

    def __init__(self, service: Service | None, backlog_gap: float = BACKLOG_GAP) -> None:
        self.service = service
        self.busy_until = 0.0
        """The time of ``perf_counter()`` at which the last decision was made or the last batch written."""
        self.is_stopping = False
        self.waiting = 0
        """Bytes that wait in all connections: for the rest of a head, for keys, for a client to read."""
        self.default_lines = b""
        """The headers that uvicorn adds to every answer, the date among them."""
        self._batch: list[tuple[asyncio.Transport, bytes]] = []
        self._backlog_gap = backlog_gap
        self._is_ticking = False

    def write(self, transport: asyncio.Transport, answer: bytes, start: float) -> None:
        """Write the answer to a request that was read at ``start``: at once, or in a batch if requests are waiting.

        Each write can wake the client on another CPU, which takes long in a virtual machine.
        """
        if not self._batch:
            if start - self.busy_until >= self._backlog_gap:
                transport.write(answer)
                return
            self.loop.call_soon(self.write_batch)
        self._batch.append((transport, answer))
        if len(self._batch) == MAX_BATCH:
            self.write_batch()

    def write_batch(self) -> None:
        """Write the answers of the batch now, before anything that must not overtake them."""
        batch, self._batch = self._batch, []
        for transport, answer in batch:
            if not transport.is_closing():  # the client has closed it
                transport.write(answer)
        self.busy_until = perf_counter()

    def __call__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> Connection:
        """The protocol of one connection."""
        if not self._is_ticking:
            self.state = server_state
            self.loop = _loop or asyncio.get_running_loop()
            self.make_uvicorn = partial(HttpToolsProtocol, config, server_state, app_state, _loop)
            self._is_ticking = True
            self.default_lines = header_lines(server_state.default_headers)
            self.loop.call_later(TICK, self._tick)
        return Connection(self)

    def _tick(self) -> None:
        # One timer for all connections: to set and cancel one for each request costs more than to parse it.
        self.default_lines = header_lines(self.state.default_headers)
        now = self.loop.time()
        for connection in list(self.state.connections):
            if isinstance(connection, Connection) and connection.deadline < now:
                connection.expire()
        self._is_ticking = bool(self.state.connections)
        if self._is_ticking:
            self.loop.call_later(TICK, self._tick)


class Connection(asyncio.Protocol):
    """A client's connection. ``deadline`` is the time of the loop at which it is closed, in seconds."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None  # waits for keys
        self._uvicorn: HttpToolsProtocol | None = None  # has the last request of this connection
        self._is_full = False  # the client has to read its answers first
        self._is_idle = False  # between two requests
        self._is_last = False  # the connection ends with this answer: further input is ignored
        self._has_body = True  # the answer under way; one to HEAD has none
        self._waiting = 0  # bytes that the listener counts for this connection
        self.deadline = inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._set_deadline(HEAD_TIME)
        # A graceful shutdown waits for what is in here, and calls its shutdown().
        self._listener.state.connections.add(self)  # type: ignore[arg-type] # all it needs is shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.state.connections.discard(self)
        self._buffer, self._is_full = b"", False
        self._count_waiting()
        if self._uvicorn is not None:
            self._uvicorn.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_last:
            self._buffer = self._buffer + data if self._buffer else data
            self._answer_requests()
            if self._buffer or self._waiting:
                self._count_waiting()

    def eof_received(self) -> bool:
        """Whether the answer under way keeps the connection open."""
        self._is_last = True
        if self._task is not None or self._uvicorn is not None:
            return True
        self._listener.write_batch()
        self._set_deadline(UNREAD_TIME)
        return False

    def pause_writing(self) -> None:
        self._is_full = True
        self._set_deadline(UNREAD_TIME)
        if self._uvicorn is not None:
            self._uvicorn.pause_writing()
        else:
            self._transport.pause_reading()
        self._count_waiting()

    def resume_writing(self) -> None:
        self._is_full = False
        self._set_deadline(UNREAD_TIME if self._is_last else IDLE_TIME)
        if self._uvicorn is not None:
            self._uvicorn.resume_writing()
        elif self._task is None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._answer_requests()
        self._count_waiting()

    def shutdown(self) -> None:
        """uvicorn is stopping: end after the request under way."""
        self._listener.is_stopping = True
        if self._task is None and self._uvicorn is None:
            self._set_deadline(LAST_REQUEST_TIME)
        if self._is_idle:
            self._listener.write_batch()
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._is_last or self._is_full or self._transport.is_closing():
            self._transport.abort()
        elif self._buffer:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self._transport.close()

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._listener.loop.time() + seconds

    def _count_waiting(self) -> None:
        waiting = len(self._buffer) + (UNREAD_BYTES if self._is_full else 0)
        self._listener.waiting += waiting - self._waiting
        self._waiting = waiting
        if waiting and self._listener.waiting > MAX_WAITING:
            self._listener.waiting -= waiting
            self._waiting, self._buffer, self._is_last, self._is_full = 0, b"", True, False
            self._transport.abort()

    def _answer_requests(self) -> None:
        while self._buffer and not (self._is_last or self._is_full or self._task):
            end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
            if end > 4:
                head, self._buffer = self._buffer[:end], self._buffer[end:]
                self._answer(head)
            elif end == 4:  # RFC 9112 section 2.2: empty lines before a request are ignored
                self._buffer = self._buffer.lstrip(b"\r\n")
            elif len(self._buffer) >= MAX_HEAD:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            else:
                if self._is_idle:
                    self._is_idle = False
                    self._set_deadline(HEAD_TIME)
                return

    def _answer(self, data: bytes) -> None:
        start = perf_counter()
        try:
            head = Head(data)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        service = self._listener.service
        request = None
        if service is not None and not head.upgrade:
            request = routes.plain_auth_request(head.method, head.target, head.headers, "")
        if service is None or request is None:
            self._hand_over(data)
            return
        if not request.remote_addr:
            peer = self._transport.get_extra_info("peername")
            request.remote_addr = peer[0] if peer else ""
        self._is_last = not head.keep_alive or request.body_announced
        self._has_body = head.method != b"HEAD"
        self._decide(service, request, start)

    def _decide(self, service: Service, request: AuthRequest, start: float, *, may_refresh: bool = True) -> None:
        runtime = service.runtime
        decision = runtime.gate.decide(request)
        if decision.refresh is not None and may_refresh:
            self._transport.pause_reading()
            self._is_idle, self.deadline = False, inf
            self._task = self._listener.loop.create_task(self._decide_again(decision.refresh, service, request, start))
            self._listener.state.tasks.add(self._task)
            self._task.add_done_callback(self._listener.state.tasks.discard)
            return
        answer = runtime.answers.render(decision)
        self._write(answer.head, answer.body if self._has_body else b"", start, may_have_input=request.body_announced)
        end = perf_counter()
        service.decided.add(request, decision, end - start)
        self._listener.busy_until = end

    async def _decide_again(self, refresh: Refresh, service: Service, request: AuthRequest, start: float) -> None:
        await refresh()
        self._task = None
        self._decide(service, request, start, may_refresh=False)
        if not self._transport.is_closing() and not self._is_full:
            self._transport.resume_reading()
            self._answer_requests()
        self._count_waiting()

    def _hand_over(self, head: bytes) -> None:
        """Let uvicorn answer. It gets no more than the head, and closes the connection after its answer."""
        self._is_last, self._is_idle, self._buffer = True, False, b""
        self._set_deadline(UNREAD_TIME)
        self._listener.write_batch()
        self._uvicorn = self._listener.make_uvicorn()
        self._uvicorn.connection_made(self._transport)
        self._uvicorn.data_received(head[:-2] + b"connection: close\r\n\r\n")

    def _refuse(self, status: HTTPStatus) -> None:
        self._is_last, self._buffer = True, b""
        head = b"HTTP/1.1 %d %b\r\ncontent-length: 0\r\n" % (status, status.phrase.encode())
        self._write(head, b"", perf_counter(), may_have_input=True)

    def _write(self, head: bytes, body: bytes, start: float, *, may_have_input: bool) -> None:
        if self._transport.is_closing():  # the client has closed it
            return
        if not (self._is_last or self._listener.is_stopping):
            self._is_idle = True
            self._set_deadline(IDLE_TIME)  # before the write, which may call pause_writing()
            self._listener.write(self._transport, b"%b%b\r\n%b" % (head, self._listener.default_lines, body), start)
            return
        self._listener.write_batch()
        self._is_last, self._is_idle = True, False
        self._set_deadline(LAST_REQUEST_TIME if self._listener.is_stopping else UNREAD_TIME)
        self._transport.write(b"%b%bconnection: close\r\n\r\n%b" % (head, self._listener.default_lines, body))
        if may_have_input:  # to close now would reset the connection, and the answer might be lost
            self._transport.write_eof()
        else:
            self._transport.close()
