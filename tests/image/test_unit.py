"""packaging/m2m-verifier.service under a real systemd, in a container of the image with systemd added.

The container has a network of its own. Its cgroups have no memory controller where the machine still has cgroups v1.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import eventually
from tests.image.conftest import BUILDAH, Spec, mounted, run, running

ROOT = Path(__file__).parents[2]
CONFIG = "/etc/m2m-verifier/m2m.yaml"
GOOD = "issuers: [{name: lab, cognito: {region: us-east-1, user_pool_id: us-east-1_Example}}]"
RECIPE = """
FROM localhost/m2m-verifier
USER 0
RUN apt-get update && apt-get install --yes --no-install-recommends curl systemd
RUN ln -s /opt/m2m-verifier/bin/m2m-verifier /usr/local/bin/ && mkdir /etc/m2m-verifier \
    && ln -s /dev/null /etc/systemd/system/systemd-sysctl.service
COPY m2m-verifier.service /etc/systemd/system/
"""
CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_ADMIN
SYS_CHROOT SYS_PTRACE
"""

pytestmark = pytest.mark.timeout(3600)  # seconds: the first test waits for the image

Machine = Callable[..., str]
"""Runs a command line in the container, as root or as another user, and returns its output."""


@pytest.fixture(scope="module")
def machine(image: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    context, folder = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("bundle")
    shutil.copy(ROOT / "packaging" / "m2m-verifier.service", context)
    (context / "Containerfile").write_text(RECIPE)
    build = ["bud", "--isolation", "chroot", "--pull-never", "--network", "host", "--layers", "--tag", "m2m-systemd"]
    run(*BUILDAH, *build, context)

    def boot(spec: Spec) -> None:
        held = [f"CAP_{name}" for name in CAPABILITIES.split()]
        spec["root"] = {"path": str(root), "readonly": False}
        spec["process"] |= {
            "args": ["/usr/lib/systemd/systemd", "--unit=basic.target"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/usr/sbin", "container=runc"],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), held),
            "noNewPrivileges": False,
        }
        spec["linux"]["namespaces"].append({"type": "cgroup"})
        spec["mounts"] = [one for one in spec["mounts"] if one["type"] != "cgroup"] + [
            {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup2", "options": ["nosuid", "nodev"]},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ]

    with mounted("m2m-systemd") as (root, _), running(folder, boot) as (runc, process):

        def execute(line: str, *, user: str = "") -> str:
            as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
            return run(*runc, "exec", "test", *as_user, *shlex.split(line), check=False)

        up = "systemctl is-active basic.target"
        eventually(lambda: execute(up) == "active" or process.poll() is not None, "systemd is up or has ended")
        yield execute


def show(machine: Machine, *names: str) -> list[str]:
    """Properties of the service."""
    return [machine(f"systemctl show --value --property {name} m2m-verifier") for name in names]


def start(machine: Machine, configuration: str) -> None:
    machine(f"sh -c {shlex.quote(f'echo {shlex.quote(configuration)} >{CONFIG}')}")
    machine("systemctl restart m2m-verifier")


@pytest.fixture
def started(machine: Machine) -> Machine:
    start(machine, GOOD)
    eventually(lambda: "healthy" in ask(machine, "root") or "failed" in show(machine, "ActiveState"), "it answers")
    return machine


def ask(machine: Machine, user: str) -> str:
    """What the service answers to a user on its socket; empty: nothing."""
    return machine("curl --silent --unix-socket /run/m2m-verifier/verifier.sock http://localhost/health", user=user)


def test_nginxs_group_reaches_the_socket_and_nobody_else(started: Machine) -> None:
    assert "healthy" in ask(started, "www-data")
    assert ask(started, "games") == ""


def test_it_has_a_user_of_its_own_no_capability_and_a_filter_of_system_calls(started: Machine) -> None:
    [pid] = show(started, "MainPID")
    status = dict(re.findall(r"^(\w+):\s+(\S+)", started(f"cat /proc/{pid}/status"), re.MULTILINE))
    assert 61184 <= int(status["Uid"]) <= 65519  # systemd's dynamic users
    assert (int(status["CapBnd"], 16), status["NoNewPrivs"], status["Seccomp"]) == (0, "1", "2")


def test_stopping_it_is_a_success(started: Machine) -> None:
    started("systemctl stop m2m-verifier")
    assert show(started, "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]


def test_it_is_started_again_if_it_is_killed_and_not_if_its_configuration_is_wrong(started: Machine) -> None:
    started("systemctl kill --signal=KILL m2m-verifier")
    eventually(lambda: show(started, "NRestarts", "ActiveState") == ["1", "active"], "it was started again")
    start(started, "issuers: 7")
    eventually(lambda: show(started, "ActiveState") == ["failed"], "it has given up")
    assert show(started, "NRestarts", "ExecMainStatus") == ["0", "2"]
