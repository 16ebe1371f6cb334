"""The head of a request: request line and headers, parsed by llhttp."""

from __future__ import annotations

from typing import Any

import httptools


class Head:
    """One complete head, the empty line included; nothing may follow it. Raises httptools.HttpParserError."""

    __slots__ = ("_parser", "headers", "keep_alive", "method", "target", "upgrade")

    def __init__(self, data: bytes) -> None:
        self.method = self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep_alive = self.upgrade = False
        self._parser: Any = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        finally:
            self._parser = None  # it refers to this object, and a cycle would be left to the garbage collector

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.method:
            raise ValueError("a second request before the empty line")
        if self.target.find(b"#") >= 0:  # no part of a target (RFC 9112 section 3.2); what follows would not count
            raise ValueError("a fragment in the request target")
        self.method = self._parser.get_method()
        self.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
