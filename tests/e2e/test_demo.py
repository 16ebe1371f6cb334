"""`m2m-verifier demo`, as a newcomer uses it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

from tests.e2e.stage import children, command_line, eventually
from verifier.demo.serving import bind, free_port, port_of
from verifier.demo.walk import HEADING

DEMO = [sys.executable, "-P", "-m", "verifier", "demo"]


@dataclass
class Demo:
    """A running demo: what it printed before the log, and its output since then, both streams together."""

    process: subprocess.Popen[str]
    screen: str
    log: list[str] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        return sorted(set(re.findall(r"http://127\.0\.0\.1:\d+", self.screen)))

    @property
    def files(self) -> list[Path]:
        return [Path(found) for found in re.findall(r"^  \S.*?  +(/\S+)", self.screen, re.MULTILINE)]


@pytest.fixture
def demo() -> Iterator[Demo]:
    command = [*DEMO, "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        made = Demo(process, "".join(takewhile(f"{HEADING}\n".__ne__, process.stdout)))
        reader = threading.Thread(target=made.log.extend, args=(process.stdout,))
        reader.start()
        try:
            yield made
        finally:
            process.terminate()
            reader.join()


def test_the_self_test_takes_every_step_and_passes() -> None:
    result = subprocess.run([*DEMO, "--check", "--port", str(free_port())], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok"] * 5


def test_the_printed_lines_work_as_pasted(demo: Demo) -> None:
    pasted = "\n".join(line for line in demo.screen.partition("Paste")[2].splitlines() if line.startswith("  "))
    result = subprocess.run(["bash"], input=pasted, capture_output=True, text=True, check=False)

    statuses = re.findall(r"^HTTP/1\.1 (\d+)", result.stdout, re.MULTILINE)
    assert statuses == ["200", "401", "403", "200"], result.stdout
    allowed, refused, _, forged = re.split(r"^HTTP/1\.1 ", result.stdout, flags=re.MULTILINE)[1:]
    for header in ("X-M2M-Client-ID", "X-M2M-Scope", "X-M2M-Role", "X-M2M-Issuer"):
        assert f'"{header}": "' in allowed
    assert "www-authenticate: bearer realm=" in refused.lower()
    assert "demo-reader" in forged
    assert "root" not in forged
    assert "insufficient_scope" in forged.partition("}")[2]  # what explain prints, after the last answer's body


def test_the_screen_names_each_step_of_the_start_and_the_files_that_were_written(demo: Demo) -> None:
    steps = [line for line in demo.screen.splitlines() if line.startswith("==> ")]
    assert steps == ["==> starting token issuer and API", "==> starting verifier", "==> starting nginx"]
    assert [file.name for file in demo.files] == ["verifier.yaml", "nginx.conf", "verifier.log", "error.log"]
    assert [file for file in demo.files if not file.exists()] == []


def test_a_broken_edit_of_the_configuration_is_shown(demo: Demo) -> None:
    configuration = demo.files[0]
    configuration.write_text(configuration.read_text().replace("scope_prefix", "scope_prefiks"))
    eventually(lambda: [line for line in demo.log if "scope_prefiks" in line], "the error is on the screen")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_with_exit_status_0(demo: Demo, number: int) -> None:
    demo.process.send_signal(number)

    assert demo.process.wait(30) == 0
    assert_nothing_listens(demo)
    assert [file for file in demo.files if file.exists()] == []


def assert_nothing_listens(demo: Demo) -> None:
    assert len(demo.urls) == 2  # nginx and the verifier's metrics
    for url in demo.urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


def starting_parts(_: int, folder: Path) -> bool:
    """Whether it starts the verifier or nginx."""
    return any(folder.iterdir())


def begun(pid: int, folder: Path) -> bool:
    """Whether its first lines have run: signals are blocked, or were."""
    blocked = Path(f"/proc/{pid}/status").read_text().partition("SigBlk:")[2].split()[0]
    return bool(int(blocked, 16) >> (signal.SIGINT - 1) & 1) or starting_parts(pid, folder)


@pytest.mark.parametrize("stage", [begun, starting_parts])
def test_signals_during_the_start_stop_everything_with_exit_status_0(
    stage: Callable[[int, Path], bool], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*DEMO, "--port", str(free_port())],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        eventually(lambda: stage(process.pid, tmp_path), "it has got so far")
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        assert process.stderr
        assert (process.returncode, process.stderr.read()) == (0, b"")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("argument", "name"), [("serve", "the verifier"), ("nginx.conf", "nginx")])
def test_a_part_that_dies_is_named_and_the_exit_status_is_1(demo: Demo, argument: str, name: str) -> None:
    [part] = [pid for pid in children(demo.process.pid) if argument in command_line(pid)]
    os.kill(part, signal.SIGKILL)

    assert demo.process.wait(30) == 1
    eventually(lambda: f"{name} died" in "".join(demo.log), "it is on the screen")
    assert_nothing_listens(demo)


def test_a_taken_port_is_one_line_and_exit_status_1() -> None:
    with bind() as taken:
        port = port_of(taken)
        result = subprocess.run([*DEMO, "--port", str(port)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf".*port {port}.*in use.*\n", result.stderr)
