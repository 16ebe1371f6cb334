"""Audit lines from files, gzip files and standard input, one chunk at a time, and the progress on a terminal."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import orjson

from verifier.reasons import Reason

CHUNK = 1024 * 1024  # bytes that are read at once, after decompression
MAX_LINE = 256 * 1024  # bytes; the verifier writes no longer one
STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952 section 2.3.1

REASONS: dict[str, Reason] = {reason.value: reason for reason in Reason}
EVENTS = {"allow": True, "would_deny": True, "deny": False}
"""By event, whether nginx let the request pass."""


class InputError(Exception):
    """A file cannot be read to its end. The text names the file and the cause."""


class Record(NamedTuple):
    """What one audit line says of a request, as far as the report uses it."""

    reason: Reason
    passed: bool
    """Whether nginx let it pass: it was allowed, or refused in report mode."""
    time: str
    policy: str
    issuer: str
    client_id: str
    scope: str
    role: str
    jti: str
    method: str
    host: str
    path: str


_TEXTS = itemgetter("time", "policy", "issuer", "client_id", "scope", "role", "jti", "method", "host", "path")
_TIME_LENGTH = len("2027-01-15T08:00:00.250000Z")


def parse_line(line: bytes) -> Record:
    """The record of one line; what a collector wrote before the object is skipped. Raises ValueError."""
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE // 1024} KiB")
    try:
        if not line.startswith(b"{"):
            line = line[line.index(b"{") :]
        entry = _loads(line)
        texts = _TEXTS(entry)
        reason, passed = REASONS[entry["reason"]], EVENTS[entry["event"]]
        "".join(texts)  # raises TypeError where one is no text
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("not an audit line") from None
    if len(texts[0]) != _TIME_LENGTH or texts[0][-1] != "Z" or (entry["event"] == "allow") != (reason is Reason.OK):
        raise ValueError("time, event and reason do not fit")
    return Record(reason, passed, *texts)


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # orjson refuses half of a surrogate pair, which a jti may hold
        return json.loads(line)


class Progress:
    """A line on a terminal from half a second on, drawn at most ten times a second. ``total`` is in bytes, 0: unknown.

    Not worth a dependency of the service: a library would draw the same.
    """

    FIRST, INTERVAL, WIDTH = 0.5, 0.1, 30  # seconds, seconds, characters

    def __init__(self, total: int, out: TextIO, timer: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._out = out
        self._timer = timer
        self._next = timer() + self.FIRST if out.isatty() else float("inf")
        self._is_drawn = False

    def show(self, done: int, lines: int) -> None:
        """``done`` bytes of the files and ``lines`` have been read."""
        if self._timer() < self._next:
            return
        self._next = self._timer() + self.INTERVAL
        share = min(done / self._total, 1.0) if self._total else 0.0
        bar = "#" * int(share * self.WIDTH)
        part = f"[{bar:<{self.WIDTH}}] {share:4.0%}  " if self._total else ""
        self._write(f"{part}{lines:,} lines")

    def end(self) -> None:
        """Clear the line."""
        if self._is_drawn:
            self._write("")
            self._out.flush()

    def _write(self, text: str) -> None:
        self._is_drawn = True
        self._out.write(f"\r{text}\x1b[K")  # erase to the end of the line (ECMA-48)
        self._out.flush()


def read(paths: Sequence[str], stdin: io.BufferedReader, progress_to: TextIO) -> Iterator[tuple[str, int, bytes]]:
    """The lines of all files in their order, ``-`` for ``stdin``: file, number and text. Raises InputError."""
    progress = Progress(_size(paths), progress_to)
    before = count = 0
    try:
        for path in paths:
            name = "standard input" if path == STDIN else path
            position = 0
            with _errors_of(name), contextlib.nullcontext(stdin) if path == STDIN else open(path, "rb") as raw:
                for first, lines, position in _chunks(raw):
                    yield from ((name, number, line) for number, line in enumerate(lines, first))
                    count += len(lines)
                    progress.show(before + position, count)
            before += position
    finally:
        progress.end()


def _size(paths: Sequence[str]) -> int:
    """The size of all files, 0 where one is no regular file."""
    sizes = []
    for path in map(Path, paths):
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return sum(sizes) if len(sizes) == len(paths) and all(sizes) else 0


@contextlib.contextmanager
def _errors_of(name: str) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise InputError(f"{name}: the gzip file is truncated") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name}: the gzip file is damaged: {error}") from None
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None


def _chunks(raw: io.BufferedReader) -> Iterator[tuple[int, list[bytes], int]]:
    """The number of the first line, some lines, and the position in ``raw``.

    A line that is too long is cut, and still too long.
    """
    file: BinaryIO = raw
    if raw.peek(2)[:2] == GZIP_MAGIC:
        file = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment] # it reads like a BinaryIO
    number, rest, position = 1, b"", 0
    while data := file.read(CHUNK):
        position = raw.tell() if raw.seekable() else 0
        lines = (rest + data).split(b"\n")
        rest = lines.pop()[: MAX_LINE + 1]
        yield number, lines, position
        number += len(lines)
    if rest:
        yield number, [rest], position
