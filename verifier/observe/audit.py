"""One JSON line on stdout for each decision. A thread writes the lines, so that a slow reader delays no answer."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import orjson

from verifier.observe.batch import Observation
from verifier.reasons import OK
from verifier.request import trace_id_of

log = logging.getLogger(__name__)

MAX_PENDING = 10_000  # lines that wait for a reader; more are dropped and counted
MAX_PENDING_BYTES = 4 * 1024 * 1024  # whichever comes first; lines that the thread is writing are included
INTERVAL = 0.05  # seconds between batches
PIPE_BYTES = 1024 * 1024
SHORTEST_TOKEN = 24  # characters: no header names an alg in fewer
MAX_TEXT = 1024  # characters of one field that a client may choose

# A token in a path or a request id: base64url parts, the first an encoded JSON object. Nearly all begin with `{"`;
# where white space follows the brace, three parts distinguish a token from a file's name.
_DOT = r"(?:\.|%2[Ee])"
_JSON = rf"eyJ[\w-]*(?:{_DOT}[\w-]*)*"
_THREE_PARTS = rf"[\w-]{{10,}}{_DOT}[\w-]+{_DOT}[\w-]+"
_TOKEN = re.compile(rf"{_JSON}|(?<![\w-])e[yw]{_THREE_PARTS}")
# In a text that was cut, the last token may lack parts.
_TOKEN_IN_CUT = re.compile(rf"{_JSON}|(?<![\w-])e[yw](?:{_THREE_PARTS}|[\w-]*(?:{_DOT}[\w-]*){{0,2}}(?:%2?)?\Z)")

_entry: dict[str, object] = {}
"""The line that is being written. To build a new dict of this size takes as long as to encode it."""


class Audit:
    """Writes to ``descriptor``. ``mode`` is ``all``, ``denied`` or ``off``.

    ``on_drop`` is called with the number of lines that were lost. ``lock`` is the descriptor of a file to lock while
    writing: workers share stdout and must not mix their lines.
    """

    def __init__(
        self,
        mode: str,
        *,
        on_drop: Callable[[int], None] = lambda _: None,
        descriptor: int = 1,
        lock: int | None = None,
    ) -> None:
        self.mode = mode
        self._on_drop = on_drop
        self._descriptor = descriptor
        self._file_lock = lock
        self._pending = bytearray()
        self._count = 0
        self._in_hand = 0, 0  # lines and bytes that the thread is writing
        self._is_failing = False
        self._swap = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, observations: Sequence[Observation]) -> None:
        """Queue a line for each decision; drop those for which there is no room."""
        if self.mode == "off":
            return
        if self.mode == "denied":
            observations = [one for one in observations if one.decision.reason is not OK]
        in_hand, bytes_in_hand = self._in_hand
        free = MAX_PENDING_BYTES - bytes_in_hand - len(self._pending)
        room = MAX_PENDING - in_hand - self._count if free > 0 else 0
        taken = 0
        with self._swap:  # each line is freed at once: a list of them would make the heap grow and shrink all the time
            for one in observations[:room]:
                written = line(one)
                if len(written) > free:
                    break
                self._pending += written
                free -= len(written)
                taken += 1
            self._count += taken
        if taken < len(observations):
            self._on_drop(len(observations) - taken)

    def start(self) -> None:
        """Start the writing thread."""
        with contextlib.suppress(OSError):  # stdout may be no pipe; a wide pipe takes a batch without a pause
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._write_until_stopped, name="audit", daemon=True)
        self._thread.start()

    def stop(self, patience: float = 2.0) -> None:
        """Write what is pending and end the thread; give up after ``patience`` s on a reader that takes nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(patience)

    def _write_until_stopped(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        while not self._stop.wait(INTERVAL):
            self._write_batch()
        self._write_batch()

    def _write_batch(self) -> None:
        with self._swap:
            lines, count = self._pending, self._count
            self._pending, self._count, self._in_hand = bytearray(), 0, (count, len(lines))
        if not count:
            return
        try:
            if self._file_lock is not None:
                fcntl.lockf(self._file_lock, fcntl.LOCK_EX)
            written = 0
            with memoryview(lines) as data:
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
            self._is_failing = False
        except OSError as error:  # the reader has closed its end: answering goes on
            self._on_drop(count)
            if not self._is_failing:
                log.warning("audit lines cannot be written: %s", error.strerror)
            self._is_failing = True
        finally:
            self._in_hand = 0, 0
            if self._file_lock is not None:
                fcntl.lockf(self._file_lock, fcntl.LOCK_UN)


def line(observation: Observation) -> bytes:
    """One JSON object and a newline, in ASCII. It holds no query, no header and nothing that looks like a token."""
    decision = observation.decision
    reason, token = decision.reason, decision.token
    method, request_id, remote_addr = observation.method, observation.request_id, observation.remote_addr
    host, path = _host_and_path(observation.url)
    text = "\n".join((method, host, path, request_id, remote_addr))
    if len(text) > MAX_TEXT or "ey" in text or "ew" in text:  # every token begins so: to search for one costs more
        method, host, path, request_id, remote_addr = map(_safe, (method, host, path, request_id, remote_addr))
    client_id = scope = role = jti = ""
    if token is not None:
        principal = token.principal
        client_id, scope, role, jti = principal.client_id, principal.scope, principal.role, token.jti
    entry = _entry
    entry["time"] = _time(observation.time)
    entry["event"] = "allow" if reason is OK else "would_deny" if decision.report else "deny"
    entry["status"] = 200 if reason is OK else decision.status
    entry["reason"] = reason._value_  # `value` is a property in Python
    entry["policy"] = decision.policy
    entry["issuer"] = decision.issuer
    entry["client_id"] = client_id
    entry["scope"] = scope
    entry["role"] = role
    entry["jti"] = jti
    entry["method"] = method
    entry["host"] = host
    entry["path"] = path
    entry["request_id"] = request_id
    entry["trace_id"] = trace_id_of(observation.traceparent) if observation.traceparent else ""
    entry["remote_addr"] = remote_addr
    entry["duration_us"] = round(observation.seconds * 1e6)
    entry["cached"] = bool(decision.cached)
    try:
        encoded = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a jti may hold half of a surrogate pair, which UTF-8 cannot
        encoded = b"\x7f"
    if encoded.isascii() and encoded.find(b"\x7f") < 0:
        return encoded
    return json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n"


def _time(now: float) -> str:
    """RFC 3339, with microseconds."""
    second = int(now)
    return "%s.%06dZ" % (_second(second), (now - second) * 1e6)  # noqa: UP031 # format() takes longer


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _host_and_path(url: bytes) -> tuple[str, str]:
    """Host and path of an absolute URL, empty where it is none."""
    scheme, _, rest = url.partition(b"//")
    if scheme not in (b"https:", b"http:"):
        return "", ""
    text = rest.partition(b"?")[0].partition(b"#")[0].decode("utf-8", "backslashreplace")
    host, slash, path = text.partition("/")
    if "@" in host:  # what stands before it may be a password
        host = host.rpartition("@")[2]
    return host, slash + path


def _safe(value: str) -> str:
    """A text that a client chose, bounded and without a token."""
    if len(value) < SHORTEST_TOKEN:
        return value
    if len(value) <= 2 * MAX_TEXT:
        return _TOKEN.sub("[token]", value)[:MAX_TEXT]
    # Cut before the search, whose time grows with the length.
    return _TOKEN_IN_CUT.sub("[token]", value[: 2 * MAX_TEXT])[:MAX_TEXT]
