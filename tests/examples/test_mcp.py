"""examples/mcp: the official SDK's client in front of nginx, the official SDK's server behind it."""

import difflib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from examples.mcp import __main__ as mcp
from examples.stack import Stack, guard

# What the command does not run: there, the refusal for scope is a 403 that `error_page` gives its challenge.
VARIANTS = {
    "401 by scope_challenge": {"scope_challenge": 401},
    "Cognito, bound by the scopes' prefix": {"audience": False},
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS.keys())
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with mcp.running(**request.param) as running:
        yield running


@pytest.mark.parametrize("step", mcp.STEPS, ids=lambda step: step.__name__)
def test_an_agent_gets_what_the_specification_promises(stack: Stack, step: Any) -> None:
    _, right, seen = step(stack)
    assert right, seen


def test_a_browser_may_read_the_document_and_a_cache_may_keep_it(stack: Stack) -> None:
    document = f"{stack.url}/.well-known/oauth-protected-resource/mcp"
    with httpx.Client(trust_env=False) as client:
        answers = [client.request(method, document) for method in ("OPTIONS", "HEAD", "GET")]

    assert [answer.status_code for answer in answers] == [204, 200, 200]
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in answers} == {"*"}
    assert "max-age" in answers[2].headers["Cache-Control"]
    assert answers[2].json()["resource"] == f"{stack.url}/mcp"


def test_nginx_runs_what_guard_prints_and_some_lines_more(stack: Stack) -> None:
    printed, used = guard(stack.verifier.config, "mcp"), (mcp.HERE / "nginx.conf").read_text()
    assert [line for line in difflib.ndiff(printed.splitlines(), used.splitlines()) if line.startswith("- ")] == []


def test_the_command_takes_every_step(run: Any) -> None:
    done = run("mcp")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\nok ") + done.stdout.startswith("ok ") == len(mcp.STEPS)
