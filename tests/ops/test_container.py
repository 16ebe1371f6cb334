"""The Dockerfile, without an engine: its own lines are run in a clean folder, and what they make is started.

Not run here: the base images themselves, the other architecture, and the read-only mount, for which files without
write permission stand in. CI's `make image` does those.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ABSOLUTE = re.compile(r"(?<![\w.])/(?=(?:opt|src)\b)")

pytestmark = pytest.mark.timeout(900)  # seconds: the first test waits for the build, which is as long as the network is

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


def copy_context(target: Path) -> None:
    """What an engine would be sent: .dockerignore's lines are all plain names, `*` or one `**/` pattern."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in allowed:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The root folder that the Dockerfile's lines leave behind, run one by one."""
    root = Path(tempfile.mkdtemp(prefix="image-"))
    root.chmod(0o755)
    context, base = root / "context", root / "base"
    context.mkdir()
    copy_context(context)
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True, timeout=120)  # the base image's Python
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["PATH"] = f"{base / 'bin'}:/usr/bin:/bin"
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    for stage in (BUILD, FINAL):
        folder = root
        for word, rest in stage:
            if word == "WORKDIR":
                folder = Path(ABSOLUTE.sub(f"{root}/", rest))
                folder.mkdir(exist_ok=True)
            elif word == "COPY" and not rest.startswith("--from"):
                *sources, target = rest.split()
                for source in sources:
                    here = folder / target / ("" if (context / source).is_file() else ".")
                    if (context / source).is_dir():
                        shutil.copytree(context / source, folder / target)
                    else:
                        shutil.copy(context / source, here)
            elif word == "RUN":
                command = ABSOLUTE.sub(f"{root}/", rest)
                done = subprocess.run(
                    ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
                )
                assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
    for path in (root / "opt" / "m2m-verifier").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o555)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def command(image: Path, *arguments: str) -> list[str]:
    """The image's entry point, as its user: root gives up what it is, anyone else is nobody already."""
    user, group = value(FINAL, "USER").split(":")
    [entry] = yaml.safe_load(value(FINAL, "ENTRYPOINT"))
    as_user = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"] if os.getuid() == 0 else []
    return [*as_user, ABSOLUTE.sub(f"{image}/", entry), *arguments]


ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "COGNITO_USER_POOL_ID": "us-east-1_Example",
    **dict(line.split("=", 1) for word, line in FINAL if word == "ENV"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")


def test_check_runs_as_the_images_user(image: Path) -> None:
    done = subprocess.run(command(image, "check"), env=ENVIRONMENT, cwd="/", capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "ok: issuers cognito; policies default"), done.stderr


def test_the_images_command_serves_and_ends_cleanly(image: Path) -> None:
    port, metrics = free_port(), free_port()
    environment = ENVIRONMENT | {"M2M_PORT": str(port), "M2M_METRICS_PORT": str(metrics)}
    process = subprocess.Popen(
        command(image, *yaml.safe_load(value(FINAL, "CMD"))), env=environment, cwd="/", stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, "it does not answer"
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=20) == 0


def test_running_it_writes_nothing_beside_itself(image: Path) -> None:
    before = sorted(image.rglob("*"))
    subprocess.run(command(image, "check"), env=ENVIRONMENT, cwd="/", check=True, capture_output=True, timeout=60)

    assert sorted(image.rglob("*")) == before


@pytest.mark.parametrize(
    ("python", "module"),
    [
        ("opt/m2m-verifier", "pip"),
        ("opt/m2m-verifier", "setuptools"),
        ("opt/m2m-verifier", "hatchling"),
        ("opt/m2m-verifier", "pytest"),
        ("base", "pip"),
    ],
)
def test_no_build_tool_is_left(image: Path, python: str, module: str) -> None:
    done = subprocess.run(
        [image / python / "bin" / "python", "-I", "-c", f"import {module}"], capture_output=True, text=True, timeout=30
    )

    assert f"ModuleNotFoundError: No module named '{module}'" in done.stderr


def test_the_final_stage_takes_nothing_but_the_environment() -> None:
    copies = [shlex.split(rest) for word, rest in FINAL if word in ("COPY", "ADD")]

    assert copies == [["--from=build", "/opt/m2m-verifier", "/opt/m2m-verifier"]]


def test_both_stages_have_the_same_python() -> None:
    assert value(BUILD, "FROM").removesuffix(" AS build") == value(FINAL, "FROM")


def test_the_user_is_the_one_that_kubernetes_runs() -> None:
    deployment = yaml.safe_load((ROOT / "k8s" / "base" / "deployment.yaml").read_text())
    security = deployment["spec"]["template"]["spec"]["securityContext"]

    assert value(FINAL, "USER") == f"{security['runAsUser']}:{security['runAsGroup']}"


def test_the_ports_are_the_ones_that_kubernetes_names() -> None:
    deployment = yaml.safe_load((ROOT / "k8s" / "base" / "deployment.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]

    assert value(FINAL, "EXPOSE").split() == [str(port["containerPort"]) for port in container["ports"]]
    assert yaml.safe_load(value(FINAL, "CMD")) == container["args"]


def test_every_file_that_is_copied_is_sent_and_no_other() -> None:
    copied = {
        source for word, rest in BUILD if word == "COPY" for source in rest.split()[:-1]
    }  # fmt: skip
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert lines[1] == "*"


# The lock


def locked(name: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return dict(pins)


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_the_lock_has_what_the_project_asks_for(requirement: Requirement) -> None:
    pins = {name.lower(): version for name, version in locked("requirements.lock").items()}

    assert requirement.specifier.contains(pins[requirement.name.lower()])


def test_the_lock_has_what_builds_the_wheel() -> None:
    assert "hatchling" in locked("requirements-build.lock")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_every_line_of_the_lock_has_a_hash(name: str) -> None:
    entries = re.split(r"\n(?=[\w.-]+==)", (ROOT / name).read_text())[1:]

    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("platform", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"])
@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_the_images_python_has_a_wheel_of_everything(tmp_path: Path, platform: str, name: str) -> None:
    version = re.search(r"python:(\d+\.\d+)", value(FINAL, "FROM"))
    assert version
    done = subprocess.run(
        [BIN / "uv", "pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary=:all:",
         "--python", sys.executable, "--python-version", version[1], "--python-platform", platform,
         "--target", tmp_path, "--requirement", ROOT / name],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
