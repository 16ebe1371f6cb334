"""A verifier, an API and one proxy with the guard between them, and what a row of the table looks like there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.stage import Answer, Serve, Wire, eventually, exchange, free_port, request
from tests.proxies.renderers import LUA, RENDER
from tests.proxies.table import ENVOY, HEADERS, NGINX, TABLE, Row
from tests.proxies.where import Where
from verifier.demo.issuer import Issuer
from verifier.demo.processes import Child
from verifier.demo.serving import Background

PROXIES = [name for name in RENDER if name != "haproxy" or LUA in os.environ]

DOWN = dict.fromkeys(NGINX, 500) | dict.fromkeys(ENVOY, 403) | {"traefik": 500, "caddy": 502, "haproxy": 403}
DOWN |= {"envoy": 503, "envoy-gateway": 503, "istio": 503}
"""What a client gets while the verifier is down."""

STATUS = {"ok": 200, "missing_token": 401, "expired": 401, "malformed_token": 401}


class NotStartedError(Exception):
    """The proxy refuses its configuration."""


@dataclass
class Stage:
    """What every proxy stands between."""

    serve: Serve
    issuer: Issuer
    api: Background
    folder: Path

    def guard(self, proxy: str) -> str:
        """What `m2m-verifier guard` prints."""
        command = [sys.executable, "-P", "-m", "verifier", "guard", "--proxy", proxy, "--policy", "api"]
        command += ["--config", str(self.serve.config)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    @contextlib.contextmanager
    def running(self, proxy: str, block: str, verifier: str = "") -> Iterator[Proxy]:
        """The proxy with this block. Raises NotStartedError."""
        folder = Path(tempfile.mkdtemp(prefix=proxy, dir=self.folder))
        where = Where(folder, free_port(), free_port(), verifier or self.serve.address, self.api.address)
        try:
            command = RENDER[proxy](block, where)
        except Exception as error:  # a line that is gone may leave no YAML, or not the fields that there must be
            raise NotStartedError(repr(error)) from error
        child = Child(command, folder / "log")
        try:
            eventually(lambda: not child.alive or answers(where.port), f"{proxy} answers")
            if not child.alive:
                raise NotStartedError(child.log)
            yield Proxy(proxy, where.port, where.h2, self)
        finally:
            child.stop(signal.SIGKILL, 10)
            shutil.rmtree(folder, ignore_errors=True)


def answers(port: int) -> bool:
    """Whether a proxy on a port knows its routes: Traefik listens before it has read them."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return exchange(port, request("/db/x", "Connection: close")).body != b"404 page not found\n"
    return False


@dataclass
class Proxy:
    """A running proxy."""

    name: str
    port: int
    h2: int
    stage: Stage

    def token(self, row: Row) -> str | None:
        """The row's token, None: it sends none."""
        if row.scopes is None:
            return None
        return self.stage.issuer.mint({**self.stage.issuer.machine_claims("etl", row.scopes), **row.claims})

    def send(self, row: Row) -> Answer | None:
        """The answer, None where the proxy only closes the connection."""
        lines = [f"X-Request-ID: {row.number}", *row.lines]
        if row.body and "chunked" not in str(row.lines):
            lines.append(f"Content-Length: {len(row.body)}")
        if not any(line.startswith("Connection:") for line in row.lines):
            lines.append("Connection: close")
        head = request(row.target, *lines, method=row.method, token=self.token(row), version=row.version, host=row.host)
        with Wire(self.port) as wire, contextlib.suppress(ConnectionError):
            wire.send(head + row.body.encode())
            return wire.read(row.method)
        return None


def identity(row: Row, issuer: Issuer) -> dict[str, str]:
    """What the API has to see."""
    if row.anonymous or row.scopes is None:
        return dict.fromkeys(HEADERS, "")
    scope = " ".join(issuer.prefix + one for one in row.scopes)
    values = {"X-M2M-Client-ID": "etl", "X-M2M-Scope": scope, "X-M2M-Issuer": "lab", "X-User-ID": "etl"}
    return dict.fromkeys(HEADERS, "") | values


def wrong(row: Row, proxy: Proxy, answer: Answer | None) -> str:
    """What is wrong with an answer as a client sees it, or an empty string."""
    expected = row.by.get(proxy.name, row.status or STATUS.get(row.reason, 403))
    status = answer.status if answer is not None else None
    arrives = expected == "arrives"
    if expected in ("rewrites", "arrives"):
        expected = 200
    elif proxy.name in row.by:
        return "" if status == expected else f"status {status} instead of {expected}"
    if status != expected or answer is None:
        return f"status {status} instead of {expected}"
    if status not in (101, 200) or row.method == "HEAD":
        return ""
    answer.body = answer.headers.get("x-seen", "").encode() or answer.body
    underscored = any(name.replace("-", "_").lower() in answer.body.decode() for name in HEADERS)
    arrived = underscored or "h2c" in answer.seen("Upgrade")
    if arrived != arrives:
        return f"forged headers with underscores, or h2c, arrived: {arrived}"
    seen = {name: answer.seen(name) for name in HEADERS}
    for name, value in identity(row, proxy.stage.issuer).items():
        if seen[name] not in ([value], [value] if value else []):
            return f"{name} is {seen[name]} instead of {value!r}"
    return ""


def decisions(stage: Stage) -> dict[str, list[tuple[str, str]]]:
    """Reason and path of the verifier's decisions so far, by request id."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in list(stage.serve.output):
        entry_ = json.loads(line)
        found.setdefault(entry_["request_id"], []).append((entry_["reason"], entry_["path"]))
    return found


def is_refused_while_down(proxy: Proxy) -> bool:
    """Whether a token does not pass, once the proxy has found out that it can ask nobody."""
    found: list[int] = []

    def settled() -> bool:
        answer = proxy.send(TABLE[0])
        found.append(answer.status if answer else 0)
        return found[-1] in (200, DOWN[proxy.name])

    eventually(settled, f"{proxy.name} answers {DOWN[proxy.name]}")
    return 200 not in found
