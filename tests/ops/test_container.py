"""The Dockerfile without a container engine: its lines are run in an empty folder, and the result is started.

Not tested here: the read-only mount, which files without write permission replace (`make image-test` has it), the base
image (CI's `make image`) and the other architecture.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from tests.e2e.stage import eventually
from verifier.demo.serving import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LOCKS = ["requirements.lock", "requirements-build.lock"]
ABSOLUTE = re.compile(r"(?<![\w.])/(?=(?:opt|src)\b)")

pytestmark = pytest.mark.timeout(900)  # seconds: the first test waits for the build, which needs the network

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
    """Copy the build context; .dockerignore has only plain names, `*` and one `**/` pattern."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in allowed:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The root folder after the Dockerfile's lines have been run one by one."""
    root = Path(tempfile.mkdtemp(prefix="image-"))
    root.chmod(0o755)
    context, base = root / "context", root / "base"
    context.mkdir()
    copy_context(context)
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True, timeout=120)  # the base image's Python
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables |= {"PATH": f"{base / 'bin'}:/usr/bin:/bin", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for stage in (BUILD, FINAL):
        folder = root
        for word, rest in stage:
            if word == "WORKDIR":
                folder = Path(ABSOLUTE.sub(f"{root}/", rest))
                folder.mkdir(exist_ok=True)
            elif word == "COPY" and not rest.startswith("--from"):
                *sources, target = rest.split()
                for source in sources:
                    copy = shutil.copytree if (context / source).is_dir() else shutil.copy
                    copy(context / source, folder / target)
            elif word == "RUN":
                command = ABSOLUTE.sub(f"{root}/", rest).replace(" --no-cache-dir", "")  # downloads are not tested
                status, printed = output(["/bin/sh", "-c", command], cwd=folder, env=variables)
                assert status == 0, f"{rest}\n{printed}"
    for path in (root / "opt" / "m2m-verifier").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o555)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def environment(image: Path) -> dict[str, str]:
    """The image's variables, and a user pool as the configuration."""
    given = dict(line.split("=", 1) for word, line in FINAL if word == "ENV")
    given["PATH"] = ABSOLUTE.sub(f"{image}/", given["PATH"]).replace("$PATH", "/usr/bin:/bin")
    return given | {"COGNITO_USER_POOL_ID": "us-east-1_Example"}


def command(image: Path, *arguments: str) -> list[str]:
    """The entry point with arguments, as the image's user. A user other than root needs no change of user."""
    user, group = value(FINAL, "USER").split(":")
    [entry] = yaml.safe_load(value(FINAL, "ENTRYPOINT"))
    as_user = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"] if os.getuid() == 0 else []
    return [*as_user, ABSOLUTE.sub(f"{image}/", entry), *arguments]


def output(command: list[Any], **options: Any) -> tuple[int, str]:
    """Exit status and all output."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False, **options
    )
    return done.returncode, done.stdout


def test_hadolint_finds_nothing() -> None:
    assert output([BIN / "hadolint", ROOT / "Dockerfile"]) == (0, "")


def test_check_runs_as_the_images_user_and_writes_nothing_beside_itself(image: Path) -> None:
    before = sorted(image.rglob("*"))
    status, printed = output(command(image, "check"), env=environment(image), cwd="/")
    assert (status, printed.splitlines()[0]) == (0, "ok: issuers cognito; policies default")
    assert sorted(image.rglob("*")) == before
    [entry] = yaml.safe_load(value(FINAL, "ENTRYPOINT"))
    assert shutil.which("m2m-verifier", path=environment(image)["PATH"]) == ABSOLUTE.sub(f"{image}/", entry)


def test_the_images_command_serves_and_ends_cleanly(image: Path) -> None:
    port = free_port()
    ports = {"M2M_PORT": str(port), "M2M_METRICS_PORT": str(free_port())}
    with subprocess.Popen(
        command(image, *yaml.safe_load(value(FINAL, "CMD"))),
        env=environment(image) | ports, cwd="/", stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            eventually(lambda: healthy(port), "it answers")
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def healthy(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
    return False


def test_no_build_tool_is_left(image: Path) -> None:
    runtime, base = image / "opt" / "m2m-verifier" / "bin" / "python", image / "base" / "bin" / "python"
    for python, module in [(base, "pip"), *((runtime, one) for one in ("pip", "setuptools", "hatchling", "pytest"))]:
        assert f"No module named '{module}'" in output([python, "-I", "-c", f"import {module}"])[1]


@pytest.mark.parametrize(
    "name", ["verifier/py.typed", "verifier/tools/blocks/nginx.conf", "m2m_verifier-*.dist-info/licenses/LICENSE"]
)
def test_the_wheel_carries_what_is_no_code(image: Path, name: str) -> None:
    assert len(list((image / "opt" / "m2m-verifier").glob(f"lib/python*/site-packages/{name}"))) == 1


def test_the_final_stage_has_the_same_python_and_takes_nothing_but_the_environment() -> None:
    copies = [shlex.split(rest) for word, rest in FINAL if word in ("COPY", "ADD")]

    assert copies == [["--from=build", "/opt/m2m-verifier", "/opt/m2m-verifier"]]
    assert value(BUILD, "FROM").removesuffix(" AS build") == value(FINAL, "FROM")


def test_user_ports_and_arguments_are_the_ones_that_kubernetes_has() -> None:
    pod = yaml.safe_load((ROOT / "k8s" / "base" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
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
    assert output([*install, *target, "--target", tmp_path, "--requirement", ROOT / name]) == (0, "")
