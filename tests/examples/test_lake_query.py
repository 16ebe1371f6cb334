"""examples/lake-query: roles by client and by scope, through nginx."""

import importlib

import pytest

EXAMPLE = "lake-query"
TITLES = importlib.import_module("examples.lake-query.__main__").TITLES
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("title", [*TITLES, "exit status"])
def test_a_step_goes_as_the_readme_says(printed: dict[str, str], title: str) -> None:
    assert printed[title] == "ok"
