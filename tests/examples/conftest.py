"""What every example has in common."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def printed(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the command of the module's EXAMPLE prints: the result of each step by its title, and its exit status."""
    command = [sys.executable, "-m", f"examples.{request.module.EXAMPLE}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    steps = re.findall(r"(\w+) +(.+)\n +(.+)\n", done.stdout)
    status = "ok" if done.returncode == 0 else f"{done.returncode}: {done.stderr}"
    return {title: result if result == "ok" else seen for result, title, seen in steps} | {"exit status": status}
