"""uvicorn's HTTP protocol, with a short way for what nginx asks.

Nearly every subrequest is a GET without a body whose answer needs no waiting. It is answered as soon as its headers
are parsed: no ASGI scope, no task, no messages, which together take longer than the decision. Everything else goes
uvicorn's way to the same application, whose answers are the same. Parsing, flow control and shutdown are uvicorn's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, ClassVar

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from verifier.gate import AuthEndpoint
from verifier.identity import header_lines
from verifier.proxies import nginx
from verifier.server.outbox import HeldTransport, Outbox

_CLOSE = (b"connection", b"close")


class AuthProtocol(HttpToolsProtocol):
    """One connection to an application that has an ``endpoint``, and an ``outbox`` that all its connections share."""

    _alike: ClassVar[tuple[ServerState | None, dict[str, Any]]] = (None, {})
    """A server, and what all of its connections begin with: uvicorn works it out for each anew, loggers and all, and
    ingress-nginx makes one for each subrequest."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        server, alike = self._alike
        if server is server_state:
            vars(self).update(alike)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self.pipeline = deque()
            return
        super().__init__(config, server_state, app_state, _loop)
        app: Any = config.app
        self._endpoint: AuthEndpoint = app.endpoint
        self._outbox: Outbox = app.outbox
        self._is_known = False
        self._last_request = 0.0
        self._idle_check: asyncio.TimerHandle | None = None
        another = vars(HttpToolsProtocol(config, server_state, app_state, _loop))
        own = {name for name, value in another.items() if value is not vars(self)[name]}
        if own == {"parser", "pipeline"}:  # else this uvicorn has more that connections must not share
            alike = {name: value for name, value in vars(self).items() if name not in own}
            AuthProtocol._alike = server_state, alike

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """A connection begins. Whose it is, is asked when it is needed: ingress-nginx makes a new one each time."""
        self.connections.add(self)
        self.transport = HeldTransport(transport, self._outbox)
        self.flow = FlowControl(self.transport)

    def on_message_begin(self) -> None:
        """A request begins. The scope that uvicorn makes here waits until it is needed."""
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Answer, or let uvicorn have the request."""
        self._last_request = self.loop.time()
        if self._answered():
            return
        if not self._is_known:
            self._is_known, flow = True, self.flow
            super().connection_made(self.transport)
            self.flow = flow
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body of a request that uvicorn has; of one that was answered here nobody reads it."""
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request that uvicorn has."""
        if self.cycle is not None:
            super().on_message_complete()

    def eof_received(self) -> None:
        """The client sends no more, and the transport is about to close: what waits goes out first."""
        self._outbox.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        if self._idle_check is not None:
            self._idle_check.cancel()

    def _answered(self) -> bool:
        asked = nginx.auth_url(self.url)
        parser = self.parser
        if asked is None or parser.get_method() != b"GET" or parser.should_upgrade() or self._is_busy():
            return False
        policy, query = asked
        answer = self._endpoint.at_once({"headers": self.headers, "query_string": query, "client": None}, policy)
        if answer is None:
            return False
        headers = self.server_state.default_headers
        keep = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        if not keep:
            headers = [*headers, _CLOSE]
        self.transport.write(b"%b%b\r\n%b" % (answer.head, header_lines(headers), answer.body))
        if not keep:
            self.transport.close()
        elif self._idle_check is None:
            self._idle_check = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)
        return True

    def _is_busy(self) -> bool:
        """Whether an earlier answer has to go out first."""
        return self._is_asking() or self.flow.write_paused or self.transport.is_closing()

    def _is_asking(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_if_idle(self) -> None:
        # One timer that looks back now and then: to set and cancel one for each request takes longer than parsing it.
        left = self._last_request + self.timeout_keep_alive - self.loop.time()
        if left > 0 or self._is_asking():
            self._idle_check = self.loop.call_later(max(left, 1.0), self._close_if_idle)
        else:
            self.timeout_keep_alive_handler()
