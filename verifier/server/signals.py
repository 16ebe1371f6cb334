"""SIGTERM and SIGINT end the process with status 0, whenever they come.

A handler that raises may break what it interrupts, as the start of an event loop, or be swallowed by it, as in a
callback of an import. So a signal waits until somebody looks out for it; before that it is let through only where a
configuration is waited for, which can take long.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def hold() -> None:
    """Let a signal wait from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release() -> None:
    """Deliver a signal that waited, and each one that comes, to its handler."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def ignore() -> None:
    """Take no notice of any more signals: the process is on its way out, and one would change its exit status."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """A signal in here raises SystemExit, also one that waited. Afterwards signals wait again."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        release()
        yield
    finally:
        hold()
