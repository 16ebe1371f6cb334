""".github/workflows: they are linted, pinned, and have only the permissions that they need."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import BIN, ROOT, find, run
from verifier import __version__

PATHS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
Workflow = dict[Any, Any]


def read(name: str) -> Workflow:
    workflow: Workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return workflow


def steps() -> Iterator[dict[str, Any]]:
    for path in PATHS:
        for job in read(path.name)["jobs"].values():
            yield from job.get("steps", [])


def script(key: str, value: str) -> str:
    """The commands of the one step with this id or name."""
    [step] = [step for step in steps() if step.get(key) == value]
    return str(step["run"])


def test_actionlint_finds_nothing() -> None:
    run(find("actionlint"), "-shellcheck=", "-pyflakes=", *PATHS)  # without its helpers, which not every machine has


def test_zizmor_finds_nothing() -> None:
    others = [ROOT / ".github" / "dependabot.yml", ROOT / ".pre-commit-config.yaml"]
    run(BIN / "zizmor", "--offline", "--quiet", *PATHS, *others)


def test_every_action_is_pinned_by_commit_with_its_version_in_a_comment() -> None:
    uses = [line for path in PATHS for line in path.read_text().splitlines() if re.search(r"uses: [^.]", line)]

    assert uses
    assert [line for line in uses if not re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_workflow_may_do_nothing_that_a_job_does_not_ask_for(path: Path) -> None:
    assert read(path.name)["permissions"] == {}


def test_only_the_releases_image_and_chart_may_write() -> None:
    writers = {
        (path.name, job): {name for name, level in given["permissions"].items() if level == "write"}
        for path in PATHS
        for job, given in read(path.name)["jobs"].items()
    }

    assert {where: what for where, what in writers.items() if what} == {
        ("release.yml", "image"): {"packages", "id-token", "attestations"},
        ("release.yml", "chart"): {"packages"},
    }


def test_a_release_is_tested_first_and_only_a_tag_makes_one() -> None:
    release = read("release.yml")

    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert release["jobs"]["image"]["needs"] == "test"
    assert release["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"


def test_the_chart_is_pushed_after_the_image_to_where_the_readme_installs_it_from() -> None:
    chart = read("release.yml")["jobs"]["chart"]
    owner = "informationcart"
    pushed = chart["steps"][-1]["run"].replace("$GITHUB_REPOSITORY_OWNER", owner)

    assert chart["needs"] == "image"
    assert f"oci://ghcr.io/{owner}/charts" in pushed
    assert f"oci://ghcr.io/{owner}/charts/m2m-verifier" in (ROOT / "README.md").read_text()


def test_the_image_is_pushed_with_sbom_and_provenance_for_both_architectures() -> None:
    [build] = [step for step in steps() if step.get("uses", "").startswith("docker/build-push-action@")]

    assert (build["with"]["push"], build["with"]["sbom"], build["with"]["provenance"]) == (True, True, "mode=max")
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"


@pytest.mark.parametrize(("tag", "passes"), [(f"v{__version__}", True), ("v0.0.0", False), (__version__, False)])
def test_a_tag_that_is_not_the_version_stops_the_release(tag: str, passes: bool) -> None:
    command = script("name", "The tag is the version that the program tells")
    done = run("bash", "-ec", command, check=False, cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"})

    assert (done.returncode == 0) is passes


def test_the_images_tag_is_the_one_that_the_manifests_name(tmp_path: Path) -> None:
    output = tmp_path / "output"
    environment = {"GITHUB_REF_NAME": f"v{__version__}", "GITHUB_OUTPUT": str(output)}
    run("bash", "-ec", script("id", "version"), env=environment)

    assert output.read_text() == f"version={__version__}\n"


def test_each_make_target_of_a_workflow_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {step["run"].removeprefix("make ") for step in steps() if step.get("run", "").startswith("make ")}

    assert made == {"test", "wheel", "image", "audit", "cluster"} <= targets


@pytest.mark.parametrize("job", ["test", "wheel"])
def test_the_oldest_python_that_is_promised_and_the_images_are_tested_and_in_the_metadata(job: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=")
    images = set(re.findall(r"^FROM python:(\d+\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    tested = read("test.yml")["jobs"][job]["strategy"]["matrix"]["python"]

    assert tested == [oldest, *images]
    assert tested == re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
