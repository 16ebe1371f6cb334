"""examples/mlflow: a real MLflow server behind nginx, asked by its own client."""

from pathlib import Path

import pytest

from examples.mlflow.__main__ import TITLES
from tests.examples.conftest import ROOT
from tests.examples.test_folders import configuration

EXAMPLE = "mlflow"
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("title", [*TITLES, "exit status"])
def test_a_step_goes_as_the_readme_says(printed: dict[str, str], title: str) -> None:
    assert printed[title] == "ok"


@pytest.mark.parametrize(
    ("path", "scopes"),
    [
        ("/api/2.0/mlflow/runs/search", ("read", "write")),
        ("/api/3.0/mlflow/prompt-optimization/jobs/search", ("read", "write")),
        ("/api/2.0/mlflow/runs/create", ("write",)),
        # The end of this path is the name of a file, which the client chooses.
        ("/api/2.0/mlflow-artifacts/mpu/complete/model/search", ("write",)),
    ],
)
def test_a_post_needs_write_unless_it_searches(path: str, scopes: tuple[str, ...], tmp_path: Path) -> None:
    policy = configuration(ROOT / "examples" / EXAMPLE, tmp_path).policies.by_name["mlflow"]

    assert policy.needs_of("POST", f"https://mlflow.example.com{path}".encode()) == ((scopes,), frozenset())
