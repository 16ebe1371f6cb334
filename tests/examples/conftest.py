"""What every example has in common."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs the command of an example."""

    def command(name: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", f"examples.{name}"]
        return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)

    return command


@pytest.fixture(scope="module")
def printed(request: pytest.FixtureRequest, run: Run) -> dict[str, str]:
    """What the command of the module's EXAMPLE prints: the result of each step by its title, and its exit status."""
    done = run(request.module.EXAMPLE)
    steps = re.findall(r"(\w+) +(.+)\n +(.+)\n", done.stdout)
    status = "ok" if done.returncode == 0 else f"{done.returncode}: {done.stderr}"
    return {title: result if result == "ok" else seen for result, title, seen in steps} | {"exit status": status}
