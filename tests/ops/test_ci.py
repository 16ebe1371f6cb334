""".ci/run: which of the slower targets it runs after `make test`."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.programs import ROOT, run

SLOW = re.findall(r'^slow (\S+) "\$cache/(\S+)"', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
ALWAYS = ["test", "proxies"]
INPUT = "k8s/base/service.yaml"


class Checkout:
    """A repository with .ci/run and one input, and a `make` that only writes down its targets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder / "checkout", folder / "cache"
        (self.folder / INPUT).parent.mkdir(parents=True)
        (self.folder / INPUT).write_text("a")
        shutil.copytree(ROOT / ".ci", self.folder / ".ci")
        program = folder / "bin" / "make"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$1" >> {folder}/made\ntest ! -e {folder}/fail-"$1"\n')
        program.chmod(0o755)
        self.made = folder / "made"
        self.environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(self.cache)}
        run("git", "init", "--quiet", cwd=self.folder)
        run("git", "add", ".", cwd=self.folder)

    def built(self) -> None:
        for _, path in SLOW:
            (self.cache / "m2m-verifier" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.cache / "m2m-verifier" / path).touch()

    def run(self, **environment: str) -> tuple[list[str], str]:
        """The targets that were made, and the output."""
        self.made.unlink(missing_ok=True)
        done = run("bash", self.folder / ".ci" / "run", env=self.environment | environment, check=False)
        return self.made.read_text().split(), done.stdout if done.returncode == 0 else "failed"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_without_a_build_slow_targets_are_skipped_and_the_summary_says_so(checkout: Checkout) -> None:
    made, output = checkout.run()

    assert (made, output.count("skipped, not built on this machine")) == (ALWAYS, len(SLOW))


def test_a_build_runs_once_until_an_input_changes(checkout: Checkout) -> None:
    checkout.built()
    first, _ = checkout.run()
    second, output = checkout.run()
    (checkout.folder / INPUT).write_text("b")
    third, _ = checkout.run()

    assert first == [*ALWAYS, *(target for target, _ in SLOW)]
    assert (second, output.count("skipped, passed here")) == (ALWAYS, len(SLOW))
    assert "cluster" in third


def test_full_runs_everything_again(checkout: Checkout) -> None:
    checkout.run(FULL="1")

    assert checkout.run(FULL="1")[0] == [*ALWAYS, *(target for target, _ in SLOW)]


def test_a_failure_fails_the_run_and_is_tried_again(checkout: Checkout) -> None:
    checkout.built()
    failing = checkout.made.with_name("fail-cluster")
    failing.touch()
    _, output = checkout.run()
    failing.unlink()

    assert (output, "cluster" in checkout.run()[0]) == ("failed", True)
