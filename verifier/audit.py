"""One JSON line on stdout for each decision, written by a thread of its own: a slow reader delays no answer."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import threading
import time
from collections import deque
from typing import NamedTuple

from verifier.decision import Decision
from verifier.keys import Clock
from verifier.request import AuthRequest

log = logging.getLogger(__name__)

MAX_WAITING = 5_000  # lines kept for a reader that takes none; the rest is dropped and counted
INTERVAL = 0.05  # seconds between batches
MAX_TEXT = 1024  # characters of what a client may choose, in one field
TYPICAL_LINE = 400  # bytes

# A token in a path or a request id: three base64url parts of which the first is an encoded JSON object.
_TOKEN = re.compile(r"eyJ[\w-]*(?:\.[\w-]*)*")
_HOST_AND_PATH = re.compile(rb"[a-z]+://([^/?#]*)([^?#]*)")


class _Line(NamedTuple):
    time: float
    seconds: float
    request: AuthRequest
    decision: Decision


class Audit:
    """``mode`` is ``all``, ``denied`` or ``off``; ``descriptor`` is where lines go."""

    def __init__(self, mode: str, clock: Clock, descriptor: int = 1) -> None:
        self.mode = mode
        self.dropped = 0
        self._clock = clock
        self._descriptor = descriptor
        self._waiting: deque[_Line] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def observe_decision(self, request: AuthRequest, decision: Decision, seconds: float) -> None:
        """Queue the line of one decision."""
        if self.mode == "off" or (self.mode == "denied" and decision.reason.status == 200):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(_Line(self._clock(), seconds, request, decision))

    def start(self) -> None:
        """Start the writing thread."""
        self._thread = threading.Thread(target=self._write_until_stopped, name="audit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits and end the thread; give up after 2 s on a reader that takes nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def _write_until_stopped(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._write_batch()
        self._write_batch()

    def _write_batch(self) -> None:
        while self._waiting:
            data, count = self._next_lines()
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:  # nobody reads any more: answering goes on
                self.dropped += count
                log.warning("audit lines cannot be written: %s", error.strerror)

    def _next_lines(self) -> tuple[bytes, int]:
        """As many whole lines as one write takes in one piece: workers share stdout and must not mix their lines."""
        lines = [render(self._waiting.popleft())]
        size = len(lines[0])
        while self._waiting and size + TYPICAL_LINE < select.PIPE_BUF:
            following = render(self._waiting[0])
            if size + len(following) > select.PIPE_BUF:
                break
            self._waiting.popleft()
            lines.append(following)
            size += len(following)
        return "".join(lines).encode("ascii"), len(lines)


def render(line: _Line) -> str:
    """One JSON object and a newline. No query, no header, nothing that looks like a token."""
    request, decision = line.request, line.decision
    token, policy, reason = decision.token, decision.policy, decision.reason
    principal = token.principal if token is not None else None
    found = _HOST_AND_PATH.match(request.url)
    host, path = (part.decode("utf-8", "backslashreplace") for part in found.groups()) if found else ("", "")
    reported = policy is not None and policy.report and reason.status != 200
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.time))
    record = {
        "time": f"{seconds}.{int(line.time % 1 * 1e6):06d}Z",
        "event": "would_deny" if reported else "allow" if reason.status == 200 else "deny",
        "status": reason.status,
        "reason": reason,
        "policy": policy.name if policy is not None else "",
        "issuer": decision.issuer,
        "client_id": principal.client_id if principal else "",
        "scope": principal.scope if principal else "",
        "role": principal.role if principal else "",
        "jti": token.jti if token is not None else "",
        "method": _told(request.method),
        "host": _told(host),
        "path": _told(path),
        "request_id": _told(request.request_id),
        "remote_addr": _told(request.remote_addr),
        "duration_us": round(line.seconds * 1e6),
        "cached": decision.cached,
    }
    line_text = json.dumps(record) + "\n"
    if len(line_text) > select.PIPE_BUF:  # a write beyond it may be torn by another worker's
        record = {name: value[:80] if isinstance(value, str) else value for name, value in record.items()}
        line_text = json.dumps(record) + "\n"
    return line_text


def _told(value: str) -> str:
    """What the client chose, bounded and without a token."""
    if "eyJ" in value:
        value = _TOKEN.sub("[token]", value)
    return value[:MAX_TEXT]
