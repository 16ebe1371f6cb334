"""The program's own log, on stderr. While it answers requests a thread writes it, so that no reader can delay them."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from queue import SimpleQueue

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_PENDING = 500  # lines that wait for a reader; more are dropped and counted
MAX_LINE = 8 * 1024  # bytes
FLUSH_TIME = 2.0  # seconds that the end of the process waits for a reader


class QueuedHandler(logging.Handler):
    """Writes to ``descriptor`` from a daemon thread. ``flush`` gives up after ``patience`` seconds."""

    def __init__(self, descriptor: int = 2, patience: float = FLUSH_TIME) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._patience = patience
        self._pending: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._dropped = 0
        self._counter = threading.Lock()
        self._thread = threading.Thread(target=self._write_until_closed, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it where there is no room."""
        if self._pending.qsize() < MAX_PENDING:
            self._pending.put(self._line(record))
        else:
            with self._counter:
                self._dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written. ``logging`` calls it at the end of the process."""
        written = threading.Event()
        self._pending.put(written)
        written.wait(self._patience)

    def close(self) -> None:
        """End the thread, or leave it behind where it is blocked."""
        super().close()
        self._pending.put(None)
        self._thread.join(self._patience)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace")[:MAX_LINE] + b"\n"

    def _write_until_closed(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        while (item := self._pending.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            self._write(item)
            with self._counter:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                message = "%d log lines were dropped: stderr was not read"
                self._write(self._line(logging.LogRecord(__name__, logging.WARNING, "", 0, message, (dropped,), None)))

    def _write(self, line: bytes) -> None:
        # Not with sys.stderr: its lock would be held while a write is blocked, and the interpreter needs it to end.
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # a descriptor that another program made non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # there is no reader any more, and no other place to report it
                return


def configure(level: int, *, queued: bool = False) -> None:
    """Log from ``level`` on. ``queued``: a thread writes, and lines are dropped while stderr is not read."""
    handler: logging.Handler = QueuedHandler() if queued else logging.StreamHandler(sys.stderr)
    logging.basicConfig(handlers=[handler], level=level, format=FORMAT)
    # uvicorn's warnings are about requests: one line for each. The others write a line for each request at INFO.
    for name, least in (("uvicorn", logging.ERROR), ("httpx", logging.WARNING), ("httpcore", logging.WARNING)):
        logging.getLogger(name).setLevel(least)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
