"""What every example has in common."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs the command of an example."""

    def command(name: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", f"examples.{name}"]
        return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)

    return command
