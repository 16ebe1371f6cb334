"""The image as buildah builds it, and a container of it under runc."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import lab as lab
from tests.programs import CACHE

HERE = Path(__file__).parent
IMAGE = CACHE / "image"
BUILDAH = ["buildah", "--root", IMAGE / "storage", "--runroot", IMAGE / "run"]

Spec = dict[str, Any]


def run(*command: str | Path, check: bool = True) -> str:
    """The output of a command, its errors included."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout
    return done.stdout.strip()


@contextmanager
def mounted(image: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The root folder of a new container of an image, and the image's configuration."""
    container = run(*BUILDAH, "from", "--pull-never", f"localhost/{image}")
    try:
        config = json.loads(run(*BUILDAH, "inspect", container))["OCIv1"]["config"]
        yield Path(run(*BUILDAH, "mount", container)), config
    finally:
        run(*BUILDAH, "rm", container)


@contextmanager
def running(folder: Path, change: Callable[[Spec], None]) -> Iterator[tuple[list[str], subprocess.Popen[bytes]]]:
    """The container `test` by runc's own specification with a change: the command runc, and the container's process."""
    run("runc", "spec", "--bundle", folder)
    spec = json.loads((folder / "config.json").read_text())
    spec["process"] |= {"terminal": False, "rlimits": []}
    change(spec)
    (folder / "config.json").write_text(json.dumps(spec))
    runc = ["runc", "--root", str(folder / "state")]
    with subprocess.Popen([*runc, "run", "--bundle", folder, "test"], stdout=subprocess.DEVNULL) as process:
        try:
            yield runc, process
        finally:
            run(*runc, "delete", "--force", "test", check=False)


@pytest.fixture(scope="session")
def image() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The image's root folder and its configuration."""
    run(HERE / "build.sh", IMAGE)
    with mounted("m2m-verifier") as made:
        yield made
