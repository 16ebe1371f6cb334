"""docs/install.md and packaging/: the commands run, with the wheel of this source and folders of the test's own."""

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
from fnmatch import filter as matching
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from tests.e2e.stage import eventually
from tests.kustomize import OVERLAYS, build, pod_of
from tests.ops.pages import DOCS
from tests.programs import BIN, ROOT, run
from verifier import __version__
from verifier.demo.serving import free_port

BLOCKS = DOCS["install"].blocks("bash")
UNIT = ROOT / "packaging" / "m2m-verifier.service"
CONFIG = "/etc/m2m-verifier/m2m.yaml"
SOURCE = "git+https://github.com/informationcart/m2m-verifier"
EXPOSURE = 20  # tenths, of 100; newer versions of systemd look at more

pytestmark = pytest.mark.timeout(600)  # seconds: the installers use the network


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(BIN / "uv", "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    [made] = folder.glob("*.whl")
    return made


INSTALLS = [block for block in BLOCKS if SOURCE in block]


@pytest.mark.parametrize("block", INSTALLS, ids=["uv, for oneself", "uv, for all", "pipx, for all"])
def test_the_installed_program_runs(block: str, wheel: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    for written, used in ((SOURCE, wheel), ("/opt/m2m-verifier", tmp_path / "opt"), ("/usr/local/bin", programs)):
        block = block.replace(written, str(used))
    own = {"UV_TOOL_DIR": str(tmp_path / "own"), "UV_TOOL_BIN_DIR": str(programs)}
    own |= {"PATH": f"{programs}:{BIN}:{os.environ['PATH']}", "COGNITO_USER_POOL_ID": "us-east-1_Example"}
    run("sh", "-ec", block, env=os.environ | own)
    assert run(programs / "m2m-verifier", "--version").stdout.split()[-1] == __version__
    assert run(programs / "m2m-verifier", "check", env=os.environ | own).stdout.startswith("ok:")


@pytest.mark.parametrize(
    "name", ["verifier/py.typed", "verifier/tools/blocks/nginx.conf", "*.dist-info/licenses/LICENSE"]
)
def test_the_wheel_carries_what_is_no_code(wheel: Path, name: str) -> None:
    assert len(matching(ZipFile(wheel).namelist(), name)) == 1


# The unit


def service() -> dict[str, str]:
    """The unit's section [Service]; the last of a repeated name."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_systemd_accepts_the_unit_and_finds_it_confined(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/m2m-verifier", str(BIN / "m2m-verifier")))
    verified = run("systemd-analyze", "verify", "--man=no", unit)
    assert (verified.stdout, verified.stderr) == ("", "")
    run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit)


def test_systemd_notices_a_unit_that_is_not_confined(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("SystemCallFilter=", "#").replace("CapabilityBoundingSet=", "#"))
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit, check=False)
    assert done.returncode == 1


def command(tmp_path: Path, configuration: str) -> list[str]:
    """The unit's command, with a configuration and a socket of the test's own."""
    (tmp_path / "m2m.yaml").write_text(configuration)
    words = shlex.split(service()["ExecStart"])
    assert words[words.index("--config") + 1] == CONFIG
    own = {CONFIG: tmp_path / "m2m.yaml", "/run/m2m-verifier/verifier.sock": tmp_path / "verifier.sock"}
    return [str(BIN / "m2m-verifier"), *(str(own.get(word, word)) for word in words[1:])]


def test_the_units_command_answers_on_its_socket_and_ends_cleanly(tmp_path: Path) -> None:
    given = command(tmp_path, "issuers: [{name: lab, cognito: {user_pool_id: us-east-1_Example, region: us-east-1}}]")
    socket = tmp_path / "verifier.sock"
    environment = os.environ | {"M2M_METRICS_PORT": str(free_port())}
    with subprocess.Popen(given, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: socket.exists() or process.poll() is not None, "it listens or has ended")
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
                assert client.get("http://localhost/health").is_success
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_a_wrong_configuration_is_not_started_again(tmp_path: Path) -> None:
    done = run(*command(tmp_path, "issuers: 7"), check=False)
    assert str(done.returncode) == service()["RestartPreventExitStatus"]


def test_the_page_names_the_units_file_socket_and_configuration() -> None:
    [block] = [block for block in BLOCKS if "systemctl enable" in block]
    assert f"packaging/{UNIT.name} /etc/systemd/system/{UNIT.name}" in block
    assert CONFIG in block
    assert re.search(r"--uds (\S+)", service()["ExecStart"])[1] in block  # type: ignore[index]


# The container


def docker_run() -> list[str]:
    [block] = [block for block in BLOCKS if "docker run" in block]
    return shlex.split(block.replace("\\\n", "").splitlines()[0])


def test_the_pages_container_is_the_manifests_image_and_serves_the_folder_that_it_mounts() -> None:
    words = docker_run()
    image = pod_of(build(OVERLAYS[-1]))["containers"][0]["image"]
    assert words[words.index(image) + 1 :] == ["serve", "--config", CONFIG]
    assert f"{Path(CONFIG).parent}:{Path(CONFIG).parent}:ro" in words


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker command")
def test_docker_knows_every_option_of_the_page() -> None:
    known = set(re.findall(r"--[a-z-]+", run("docker", "run", "--help").stdout))
    words = docker_run()
    assert {word for word in words[: words.index("serve")] if word.startswith("--")} <= known
