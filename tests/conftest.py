"""What holds for the whole run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

# Before pytest-xdist starts its workers: they need the same test ids, and so sets in the same order.
os.environ.setdefault("PYTHONHASHSEED", "0")


@pytest.fixture(autouse=True)
def a_command_that_runs_in_a_test_changes_no_later_test() -> Iterator[None]:
    """`cli.main` sets PYTHONSAFEPATH for its child processes."""
    before = os.environ.get("PYTHONSAFEPATH")
    yield
    if before is None:
        os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture(scope="session", autouse=True)
def no_thread_outlives_the_tests() -> Iterator[None]:
    """A loop of libuv that still runs while the interpreter ends can crash it, after all tests have passed."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert left == []
