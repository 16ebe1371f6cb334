"""examples/mlflow: a real MLflow server behind nginx, asked by its own client."""

import pytest

from examples.mlflow.__main__ import TITLES

EXAMPLE = "mlflow"
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("title", [*TITLES, "exit status"])
def test_a_step_goes_as_the_readme_says(printed: dict[str, str], title: str) -> None:
    assert printed[title] == "ok"
