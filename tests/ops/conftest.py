import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

Manifest = dict[str, Any]
Build = Callable[[Path], list[Manifest]]


def find_tool(*names: str) -> str:
    """The first of these programs that the machine or `make tools` has."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=str(ROOT / ".tools" / "bin"))
        if found:
            return found
    pytest.fail(f"none of {', '.join(names)} is installed: run `make tools`")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    return find_tool


@pytest.fixture(scope="session")
def build() -> Build:
    """Objects of a kustomization."""
    program = find_tool("kubectl", "kustomize")
    verb = "kustomize" if Path(program).name == "kubectl" else "build"

    @functools.cache
    def run(folder: Path) -> list[Manifest]:
        done = subprocess.run([program, verb, str(folder)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return run
