"""examples/mcp: the official SDK's client in front of nginx, the official SDK's server behind it."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from examples.mcp import __main__ as mcp
from examples.stack import Stack

EXAMPLE = "mcp"
pytestmark = pytest.mark.timeout(600)

# What the command does not run: there, the refusal for scope is a 403 that `error_page` gives its challenge.
VARIANTS = {
    "401 by scope_challenge": {"scope_challenge": 401},
    "Cognito, bound by the scopes' prefix": {"audience": False},
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS.keys())
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with mcp.running(**request.param) as running:
        yield running


@pytest.mark.parametrize("title", [*mcp.STEPS, "exit status"])
def test_a_step_goes_as_the_readme_says(printed: dict[str, str], title: str) -> None:
    assert printed[title] == "ok"


@pytest.mark.parametrize("step", [mcp.finds_everything, mcp.steps_up, mcp.is_bound_to_one_server])
def test_a_step_goes_the_same_way(stack: Stack, step: Callable[[Stack], mcp.Seen]) -> None:
    right, seen = step(stack)
    assert right, seen


def test_a_browser_may_read_the_document_and_a_cache_may_keep_it(stack: Stack) -> None:
    document = f"{stack.url}/.well-known/oauth-protected-resource/mcp"
    with httpx.Client(trust_env=False) as client:
        answers = [client.request(method, document) for method in ("OPTIONS", "HEAD", "GET")]

    assert [answer.status_code for answer in answers] == [204, 200, 200]
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in answers} == {"*"}
    assert "max-age" in answers[2].headers["Cache-Control"]
    assert answers[2].json()["resource"] == f"{stack.url}/mcp"
