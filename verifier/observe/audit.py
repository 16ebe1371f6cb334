"""One JSON line on stdout for each decision. Lines wait for a thread to write them: a slow reader delays no answer."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from verifier.decision import Decision, Observed, Reason
from verifier.identity import Principal
from verifier.keys.sets import Clock
from verifier.policy.paths import is_url
from verifier.policy.policies import Policy
from verifier.request import AuthRequest

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # lines kept for a reader that takes none; the rest is dropped and counted
MAX_WAITING_MIB = 4  # whichever comes first: strangers can make lines fifty times as long as others
INTERVAL = 0.05  # seconds between batches
PIPE_BYTES = 1024 * 1024
SHORTEST_TOKEN = 24  # characters: no header names an alg in fewer
MAX_TEXT = 1024  # characters of what a client may choose, in one field

# A token in a path or a request id: base64url parts of which the first is an encoded JSON object. Nearly all begin
# with `{"`; where white space follows the brace, three parts tell a token from a file's name.
_TOKEN = re.compile(r"eyJ[\w-]*(?:\.[\w-]*)*|(?<![\w-])e[yw][\w-]{10,}\.[\w-]+\.[\w-]+")
_NOTHING = '""'


class Audit:
    """Writes to ``descriptor``. ``mode`` is ``all``, ``denied`` or ``off``.

    ``lock`` is the descriptor of a file to lock while writing: workers share stdout and must not mix their lines.
    """

    def __init__(self, mode: str, clock: Clock, *, descriptor: int = 1, lock: int | None = None) -> None:
        self.mode = mode
        self.dropped = 0
        self._clock = clock
        self._descriptor = descriptor
        self._lock = lock
        # One buffer rather than a queue of lines: thousands of small objects would be cold when their turn comes.
        self._lines = bytearray()
        self._count = 0
        self._swap = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, decided: Sequence[Observed]) -> None:
        """Queue a line for each decision of one turn of the event loop: they have one time in common."""
        if self.mode == "off":
            return
        if self.mode == "denied":
            decided = [one for one in decided if one[1].reason.status != 200]
        room = MAX_WAITING - self._count if len(self._lines) < MAX_WAITING_MIB * 1024 * 1024 else 0
        taken = decided[:room]
        self.dropped += len(decided) - len(taken)
        now = self._clock()
        text = "".join([line(now, *one) for one in taken]).encode("ascii")
        with self._swap:
            self._lines += text
            self._count += len(taken)

    def start(self) -> None:
        """Start the writing thread."""
        with contextlib.suppress(OSError):  # not every stdout is a pipe; a wide one takes a batch without a pause
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
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
        with self._swap:
            lines, count = self._lines, self._count
            self._lines, self._count = bytearray(), 0
        if not count:
            return
        try:
            if self._lock is not None:
                fcntl.lockf(self._lock, fcntl.LOCK_EX)
            written = 0
            with memoryview(lines) as data:
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
        except OSError as error:  # nobody reads any more: answering goes on
            self.dropped += count
            log.warning("audit lines cannot be written: %s", error.strerror)
        finally:
            if self._lock is not None:
                fcntl.lockf(self._lock, fcntl.LOCK_UN)


def line(now: float, request: AuthRequest, decision: Decision, seconds: float) -> str:
    """One JSON object and a newline, in ASCII. No query, no header, nothing that looks like a token.

    ``now`` is in seconds since the epoch. Put together by hand: the names are constant, and what was decided about whom
    is the same for most requests.
    """
    token = decision.token
    host, path = _place(request.url)
    principal = token.principal if token is not None else None
    decided = _decided(decision.reason, decision.policy, decision.issuer, principal)
    return (
        f'{{"time": "{_time(now)}", {decided}, '
        f'"jti": {quoted(token.jti) if token is not None else _NOTHING}, "method": {_told(request.method)}, '
        f'"host": {_told(host)}, "path": {_told(path)}, '
        f'"request_id": {_told(request.request_id)}, "remote_addr": {_told(request.remote_addr)}, '
        f'"duration_us": {seconds * 1e6:.0f}, "cached": {"true" if decision.cached else "false"}}}\n'
    )


@lru_cache(maxsize=1)
def _time(now: float) -> str:
    return f"{_second(int(now))}.{int(now % 1 * 1e6):06d}Z"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


@lru_cache(maxsize=1024)
def _decided(reason: Reason, policy: Policy | None, issuer: str, principal: Principal | None) -> str:
    status = reason.status
    event = "allow" if status == 200 else "would_deny" if policy is not None and policy.report else "deny"
    client_id, scope, role = (principal.client_id, principal.scope, principal.role) if principal else ("", "", "")
    return (
        f'"event": "{event}", "status": {status}, "reason": "{reason}", '
        f'"policy": "{policy.name if policy is not None else ""}", "issuer": "{issuer}", '
        f'"client_id": {quoted(client_id)}, "scope": {quoted(scope)}, "role": {quoted(role)}'
    )


def _place(url: bytes) -> tuple[str, str]:
    """Host and path of an absolute URL."""
    if not is_url(url):
        return "", ""
    text = url.partition(b"?")[0].partition(b"#")[0].decode("utf-8", "backslashreplace")
    authority, slash, path = text.partition("://")[2].partition("/")
    return authority.rpartition("@")[2], slash + path  # what stands before an @ may be a password


def _told(value: str) -> str:
    """What the client chose, quoted, bounded and without a token."""
    if len(value) >= SHORTEST_TOKEN:
        if "ey" in value or "ew" in value:  # as each token begins: the search for one takes longer than all the rest
            value = _TOKEN.sub("[token]", value)
        value = value[:MAX_TEXT]
    return quoted(value)
