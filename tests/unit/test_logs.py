"""The log: lines leave in order, and a reader that takes nothing blocks neither the program nor its end."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from typing import BinaryIO

import pytest

from verifier.logs import MAX_LINE, MAX_PENDING, QueuedHandler

Pipe = tuple[BinaryIO, BinaryIO]


def handler(pipe: Pipe, patience: float = 60) -> contextlib.closing[QueuedHandler]:
    return contextlib.closing(QueuedHandler(pipe[1].fileno(), patience))


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "", 0, message, values, None)


def fill(writer: BinaryIO) -> int:
    """Fill the pipe. The number of bytes."""
    os.set_blocking(writer.fileno(), False)
    return sum(iter(lambda: writer.write(b"x" * 4096) or 0, 0))


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    with handler(pipe) as log:
        for number in range(3):
            log.emit(record("line %d", number))

        assert pipe[0].read(21) == b"line 0\nline 1\nline 2\n"


def test_a_long_line_is_cut(pipe: Pipe) -> None:
    with handler(pipe) as log:
        log.emit(record("\u20ac" * MAX_LINE))

        assert pipe[0].read(MAX_LINE + 1).endswith(b"\n")


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_for_which_there_is_no_room_are_dropped_and_counted(pipe: Pipe, blocking: bool) -> None:
    filled = fill(pipe[1])
    os.set_blocking(pipe[1].fileno(), blocking)
    with handler(pipe, patience=0.01) as log:
        for _ in range(2 * MAX_PENDING):
            log.emit(record("a"))
        log.flush()
        pipe[0].read(filled)
        kept = dropped = 0
        while kept + dropped < 2 * MAX_PENDING:
            line = pipe[0].readline()
            if line == b"a\n":
                kept += 1
            else:
                dropped += int(line.removesuffix(b" log lines were dropped: stderr was not read\n"))

    assert MAX_PENDING <= kept <= MAX_PENDING + 1  # the thread holds one
    assert kept + dropped == 2 * MAX_PENDING


def test_without_a_reader_nothing_fails(pipe: Pipe) -> None:
    pipe[0].close()
    with handler(pipe) as log:
        log.emit(record("a"))
        log.flush()


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
