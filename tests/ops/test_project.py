"""The files that surround the program: licence and package metadata."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/informationcart/m2m-verifier"


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_licence_file_is_the_one_that_the_metadata_names() -> None:
    assert project()["license"] == "Apache-2.0"
    assert project()["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().split()[:5] == ["Apache", "License", "Version", "2.0,", "January"]


def test_no_classifier_names_a_licence_beside_the_expression() -> None:
    assert [name for name in project()["classifiers"] if name.startswith("License ::")] == []


def test_the_metadata_names_the_python_versions_that_ci_tests() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project()["classifiers"]))

    assert named == load(".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_every_project_url_is_of_the_repository_that_the_alerts_link_to() -> None:
    rules = (ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml").read_text()

    assert [url for url in project()["urls"].values() if not url.startswith(REPOSITORY)] == []
    assert set(re.findall(r"https://github\.com/\w+/[\w-]+", rules)) == {REPOSITORY}


@pytest.mark.parametrize("url", list(project()["urls"].values()))
def test_a_project_url_with_a_path_names_one_that_exists(url: str) -> None:
    path = re.search(r"/(?:tree|blob)/main/(.+)$", url)

    assert path is None or (ROOT / path[1]).exists()
