"""examples/lake-query: roles by client and by scope, through nginx."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from examples.stack import Stack, guard

LAKE: Any = importlib.import_module("examples.lake-query.__main__")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with LAKE.running() as running:
        yield running


@pytest.mark.parametrize("case", LAKE.CASES, ids=lambda case: case.title)
def test_a_request_gets_the_answer_that_its_client_and_role_allow(stack: Stack, case: Any) -> None:
    _, right, seen = case.take(stack)
    assert right, seen


def test_nginx_runs_what_guard_prints(stack: Stack) -> None:
    assert guard(stack.verifier.config, "lake") in (LAKE.HERE / "nginx.conf").read_text()


def test_the_command_takes_every_case(run: Any) -> None:
    done = run("lake-query")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[8:] for line in done.stdout.splitlines() if line.startswith("ok ")] == [c.title for c in LAKE.CASES]
