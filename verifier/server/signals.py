"""SIGTERM and SIGINT end the process with status 0, whenever they arrive."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_at_once() -> None:
    """Before the event loop runs there is nothing to clean up: a signal ends the process."""
    # No exception: one that is raised in the middle of an import or of the loop's start may be swallowed or break it.
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


def block() -> None:
    """Keep signals pending from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock() -> None:
    """Deliver signals, pending ones first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Keep signals pending; a process that is started inside begins with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore signals from now on: the process is about to end with status 0."""
    # To block them would not do: a thread that does not block them would still take them.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop_event() -> asyncio.Event:
    """An event of the running loop that a signal sets, also a pending one. Afterwards, call ``ignore``."""
    import asyncio  # late: it takes time in which a signal would not be handled yet

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in SIGNALS:  # not with add_signal_handler: to close the loop would bring back the default action
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    unblock()
    return stop
