"""The Dockerfile is built, unchanged, and the image starts the way Kubernetes starts it: `make image-test`.

buildah builds it on a base of Debian's packages (build.sh), runc starts it. The network is the machine's, so that the
image reaches an issuer on the loopback address.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stage import eventually, resident
from tests.image.conftest import Spec, run, running
from tests.programs import answers
from verifier import __version__
from verifier.demo.issuer import Issuer
from verifier.demo.serving import free_port

pytestmark = pytest.mark.timeout(3600)  # seconds: the first test waits for the build, which needs the network


@dataclass
class Container:
    """A container under runc. `started`: seconds from the command to the first answer."""

    runc: list[str]
    process: subprocess.Popen[bytes]
    url: str
    started: float = 0.0

    def status(self) -> dict[str, str]:
        """What the kernel says of its first process."""
        pid = json.loads(run(*self.runc, "state", "test"))["pid"]
        lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return {"Pid": str(pid)} | {name: rest.strip() for name, _, rest in lines}

    def execute(self, *command: str) -> str:
        """The output of a command inside, a failure's too."""
        return run(*self.runc, "exec", "test", *command, check=False)


@pytest.fixture(scope="module")
def container(
    image: tuple[Path, dict[str, Any]], lab: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    root, config = image
    port = free_port()
    environment = {"M2M_HOST": "127.0.0.1", "M2M_PORT": str(port), "M2M_METRICS_PORT": str(free_port())}
    environment |= {"OAUTH_ISSUER": lab.url, "OAUTH_JWKS_URL": lab.jwks_url, "OAUTH_PROFILE": "cognito"}

    def restrict(spec: Spec) -> None:  # as k8s/base/deployment.yaml restricts the pod
        user, group = map(int, config["User"].split(":"))
        spec["root"] = {"path": str(root), "readonly": True}
        spec["process"] |= {
            "user": {"uid": user, "gid": group},
            "args": [*config["Entrypoint"], *config["Cmd"]],
            "env": [*config["Env"], *(f"{name}={value}" for name, value in environment.items())],
            "capabilities": {},
        }
        shared = ("network", "cgroup")
        spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] not in shared]
        spec["mounts"] = [one for one in spec["mounts"] if one["type"] not in ("cgroup", "sysfs")]

    begun = time.monotonic()
    with running(tmp_path_factory.mktemp("bundle"), restrict) as (runc, process):
        made = Container(runc, process, f"http://127.0.0.1:{port}")
        eventually(lambda: answers(f"{made.url}/health") or process.poll() is not None, "it answers or has ended")
        made.started = time.monotonic() - begun
        yield made


def test_it_answers_health_and_is_ready(container: Container) -> None:
    answer = httpx.get(f"{container.url}/health", trust_env=False)
    assert (answer.status_code, answer.json()["service"]) == (200, "m2m-verifier")
    eventually(lambda: answers(f"{container.url}/ready"), "it has the issuer's keys")


def test_it_decides(container: Container, lab: Issuer) -> None:
    token = lab.mint(lab.machine_claims("etl", ["read"]))
    headers = {"X-Original-Method": "GET", "X-Original-URL": "https://api.example/db"}
    for authorization, status in (({"Authorization": f"Bearer {token}"}, 200), ({}, 401)):
        answer = httpx.get(f"{container.url}/verify", headers=headers | authorization, trust_env=False)
        assert answer.status_code == status


def test_it_has_the_images_user_and_no_capability(container: Container) -> None:
    status = container.status()
    assert (set(status["Uid"].split()), set(status["Gid"].split())) == ({"65532"}, {"65532"})
    assert (int(status["CapBnd"], 16), int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, 0, "1")


def test_its_root_is_read_only(container: Container) -> None:
    attempt = "import pathlib; pathlib.Path('/tmp/file').touch()"
    assert "Read-only file system" in container.execute("/opt/m2m-verifier/bin/python", "-c", attempt)


def test_the_program_is_on_the_path(container: Container) -> None:
    assert container.execute("m2m-verifier", "--version").split()[-1] == __version__


@pytest.mark.parametrize("module", ["pip", "setuptools", "hatchling", "pytest"])
def test_no_build_tool_is_left(container: Container, module: str) -> None:
    for python in ("/usr/local/bin/python", "/opt/m2m-verifier/bin/python"):
        assert f"No module named '{module}'" in container.execute(python, "-I", "-c", f"import {module}")


def test_size_memory_and_start_time_are_printed(container: Container, image: tuple[Path, dict[str, Any]]) -> None:
    root, _ = image
    sizes = [int(run("du", "-sm", path).split()[0]) for path in (root, root / "opt" / "m2m-verifier")]
    memory = resident(int(container.status()["Pid"])) / 1024
    print(f"\nimage {sizes[0]} MiB, of which /opt/m2m-verifier {sizes[1]} MiB; {memory:.0f} MiB resident;", end=" ")
    print(f"first answer {container.started:.1f} s after the start")
    assert sizes[1] < 100


def test_sigterm_stops_it_with_status_0(container: Container) -> None:
    container.process.terminate()
    assert container.process.wait(timeout=60) == 0
