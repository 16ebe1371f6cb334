"""The Dockerfile and its locks, as they are written: `make image-test` builds the image and starts it."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.kustomize import K8S, build, pod_of
from tests.programs import BIN, ROOT, run

LOCKS = ["requirements.lock", "requirements-build.lock"]
Instruction = tuple[str, str]


def instructions() -> list[list[Instruction]]:
    """The Dockerfile's stages."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages


def value(stage: list[Instruction], word: str) -> str:
    [found] = [rest for name, rest in stage if name == word]
    return found


BUILD, FINAL = instructions()


def test_hadolint_finds_nothing() -> None:
    run(BIN / "hadolint", ROOT / "Dockerfile")


def test_the_final_stage_has_the_same_python_and_takes_nothing_but_the_environment() -> None:
    copies = [shlex.split(rest) for word, rest in FINAL if word in ("COPY", "ADD")]

    assert copies == [["--from=build", "/opt/m2m-verifier", "/opt/m2m-verifier"]]
    assert value(BUILD, "FROM").removesuffix(" AS build") == value(FINAL, "FROM")


def test_user_ports_and_arguments_are_the_ones_that_kubernetes_has() -> None:
    pod = pod_of(build(K8S / "base"))
    [container] = pod["containers"]
    assert value(FINAL, "USER") == "{runAsUser}:{runAsGroup}".format(**pod["securityContext"])
    assert value(FINAL, "EXPOSE").split() == [str(port["containerPort"]) for port in container["ports"]]
    assert yaml.safe_load(value(FINAL, "CMD")) == container["args"]


def test_every_file_that_is_copied_is_sent_and_no_other() -> None:
    copied = {source for word, rest in BUILD if word == "COPY" for source in rest.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert ({line[1:] for line in lines if line.startswith("!")}, lines[1]) == (copied, "*")


# The lock


def locked(name: str) -> list[str]:
    """The entries of a lock file."""
    return re.split(r"\n(?=[\w.-]+==)", (ROOT / name).read_text())[1:]


def test_the_lock_fits_the_project_and_has_what_builds_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for name, lines in (
        ("requirements.lock", project["project"]["dependencies"]),
        ("requirements-build.lock", project["build-system"]["requires"]),
    ):
        pins = dict(entry.split()[0].lower().split("==") for entry in locked(name))
        wanted = [Requirement(line) for line in lines]
        assert [str(one) for one in wanted if not one.specifier.contains(pins[one.name.lower()])] == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_the_lock_has_a_hash(name: str) -> None:
    assert [entry for entry in locked(name) if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("platform", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"])
@pytest.mark.parametrize("name", LOCKS)
def test_the_images_python_has_a_wheel_of_everything(tmp_path: Path, platform: str, name: str) -> None:
    version = re.search(r"python:(\d+\.\d+)", value(FINAL, "FROM"))
    assert version
    install = [BIN / "uv", "pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary=:all:"]
    target = ["--python", sys.executable, "--python-version", version[1], "--python-platform", platform]
    run(*install, *target, "--target", tmp_path, "--requirement", ROOT / name)
