"""The log: lines leave in order, and a reader that takes nothing blocks neither the program nor its end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from verifier.logs import MAX_LINE, MAX_PENDING, QueuedHandler


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "", 0, message, values, None)


def fill(writer: int) -> int:
    """Fill the pipe. The number of bytes."""
    os.set_blocking(writer, False)
    filled = 0
    try:
        while True:
            filled += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
        return filled


def read(reader: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(reader, size - len(data))
    return data


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    handler = QueuedHandler(pipe[1], patience=60)
    for number in range(3):
        handler.emit(record("line %d", number))
    handler.flush()

    assert read(pipe[0], 21) == b"line 0\nline 1\nline 2\n"
    handler.close()
    os.close(pipe[1])


def test_a_long_line_is_cut(pipe: tuple[int, int]) -> None:
    handler = QueuedHandler(pipe[1], patience=60)
    handler.emit(record("\u20ac" * MAX_LINE))
    handler.flush()

    assert len(read(pipe[0], MAX_LINE + 1).splitlines()) == 1
    handler.close()
    os.close(pipe[1])


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_for_which_there_is_no_room_are_dropped_and_counted(pipe: tuple[int, int], blocking: bool) -> None:
    filled = fill(pipe[1])
    os.set_blocking(pipe[1], blocking)
    handler = QueuedHandler(pipe[1], patience=0.01)
    for _ in range(2 * MAX_PENDING):
        handler.emit(record("a"))
    handler.flush()
    read(pipe[0], filled)
    message = b" log lines were dropped: stderr was not read\n"
    lines = b""
    while message not in lines:
        lines += os.read(pipe[0], 4096)
    kept = lines.count(b"a\n")
    dropped = int(lines.partition(message)[0].rpartition(b"\n")[2])
    while kept + dropped < 2 * MAX_PENDING:
        kept += os.read(pipe[0], 4096).count(b"a\n")

    assert MAX_PENDING <= kept <= MAX_PENDING + 1  # the thread holds one
    assert kept + dropped == 2 * MAX_PENDING
    handler.close()
    os.close(pipe[1])


def test_without_a_reader_nothing_fails() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = QueuedHandler(writer, patience=60)
    handler.emit(record("a"))
    handler.flush()
    handler.close()
    os.close(writer)


def test_all_lines_are_written_at_the_end() -> None:
    code = """
import logging
from verifier import logs
logs.configure(logging.INFO, queued=True)
for number in range(400):
    logging.getLogger("test").info("line %d", number)
logging.getLogger("test").debug("not this one")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [line.rpartition(": ")[2] for line in ended.stderr.splitlines()] == [f"line {n}" for n in range(400)]
