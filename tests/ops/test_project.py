"""The files that surround the program: licence, package metadata, contribution files, Dependabot and editors."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.programs import BIN, ROOT, run

REPOSITORY = "https://github.com/informationcart/m2m-verifier"
SCHEMAS = {
    "dependabot.yml": "dependabot",
    **{f"ISSUE_TEMPLATE/{path.name}": "github-issue-forms" for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir()},
    "ISSUE_TEMPLATE/config.yml": "github-issue-config",
}
ECOSYSTEMS = {
    ("pip", "/"): "pyproject.toml",
    ("github-actions", "/"): ".github/workflows/test.yml",
    ("docker", "/"): "Dockerfile",
    ("npm", "/bench/node"): "package-lock.json",
    ("npm", "/examples/cloudwatch-mcp/librechat"): "package-lock.json",
    ("terraform", "/terraform"): "versions.tf",
    ("gomod", "/tests/ops/grafana"): "go.mod",
}


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_licence_file_is_the_one_that_the_metadata_names() -> None:
    assert (project()["license"], project()["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert (ROOT / "LICENSE").read_text().split()[:5] == ["Apache", "License", "Version", "2.0,", "January"]
    # A classifier beside the expression is an error (PEP 639).
    assert [name for name in project()["classifiers"] if name.startswith("License ::")] == []


def test_every_project_url_is_of_the_repository_that_the_alerts_link_to_and_its_path_exists() -> None:
    rules = (ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml").read_text()
    urls = project()["urls"].values()

    assert set(re.findall(r"https://github\.com/\w+/[\w-]+", rules)) == {REPOSITORY}
    assert [url for url in urls if not url.startswith(REPOSITORY)] == []
    paths = [path for url in urls for path in re.findall(r"/(?:tree|blob)/main/(.+)$", url)]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_code_owner_is_the_account_of_the_repository() -> None:
    rules = [line for line in (ROOT / ".github" / "CODEOWNERS").read_text().splitlines() if not line.startswith("#")]

    assert rules == [f"* @{REPOSITORY.split('/')[3]}"]


def test_dependabot_watches_everything_that_pins_a_version_and_finds_its_file() -> None:
    watched = {(entry["package-ecosystem"], entry["directory"]) for entry in load(".github/dependabot.yml")["updates"]}

    assert watched == set(ECOSYSTEMS)
    files = [ROOT / directory.strip("/") / file for (_, directory), file in ECOSYSTEMS.items()]
    assert [file for file in files if not file.is_file()] == []


@pytest.mark.parametrize(("path", "schema"), SCHEMAS.items())
def test_a_file_for_github_fits_its_schema(path: str, schema: str) -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", ROOT / ".github" / path)


def test_the_issue_page_sends_vulnerabilities_to_the_security_policy() -> None:
    links = [link["url"] for link in load(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]]

    assert f"{REPOSITORY}/security/policy" in links  # where GitHub shows SECURITY.md
    assert (ROOT / "SECURITY.md").is_file()


def test_pre_commit_downloads_nothing_and_runs_programs_that_make_check_runs() -> None:
    [repo] = load(".pre-commit-config.yaml")["repos"]
    hooks = {hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in repo["hooks"]}
    makefile = (ROOT / "Makefile").read_text()

    assert (repo["repo"], hooks) == ("local", {"ruff format", "ruff check", "mypy"})
    assert [hook for hook in hooks if not re.search(rf"^\t\$\(VENV\)/bin/{hook}\b", makefile, re.MULTILINE)] == []
