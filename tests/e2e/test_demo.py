"""`m2m-verifier demo`, as a newcomer meets it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.stage import children, command_line, eventually
from verifier.demo.serving import bind, free_port, port_of

DEMO = [sys.executable, "-m", "verifier", "demo"]


@dataclass
class Demo:
    """A demo that runs, what it printed up to the audit log's heading, and its output since."""

    process: subprocess.Popen[str]
    screen: str
    audit: list[str] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        return sorted(set(re.findall(r"http://127\.0\.0\.1:\d+", self.screen)))


@pytest.fixture
def demo() -> Iterator[Demo]:
    process = subprocess.Popen(
        [*DEMO, "--port", str(free_port())], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    screen = ""
    for line in process.stdout:
        screen += line
        if line.startswith("What the verifier decides"):
            break
    made = Demo(process, screen)
    reader = threading.Thread(target=made.audit.extend, args=(process.stdout,))
    reader.start()
    try:
        yield made
    finally:
        process.terminate()
        process.wait(30)
        reader.join()
        process.stdout.close()
        assert process.stderr
        process.stderr.close()


def test_the_check_takes_every_step_and_passes() -> None:
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
    assert "insufficient_scope" in forged.partition("}")[2]  # what explain says, behind the last answer's body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_with_exit_status_0(demo: Demo, number: int) -> None:
    demo.process.send_signal(number)

    assert demo.process.wait(30) == 0
    assert_nothing_listens(demo)
    policy = re.search(r"policy +(\S+)", demo.screen)
    assert policy
    assert not Path(policy[1]).exists()


def starting_parts(_: subprocess.Popen[bytes], folder: Path) -> bool:
    """Whether it has got to the verifier and nginx."""
    return any(folder.iterdir())


def begun(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Whether its first lines have run: signals wait, or did."""
    waiting = re.search(r"^SigBlk:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    held = waiting is not None and int(waiting[1], 16) >> (signal.SIGINT - 1) & 1 == 1
    return held or starting_parts(process, folder)


@pytest.mark.parametrize("stage", [begun, starting_parts])
def test_signals_while_it_starts_stop_everything_with_exit_status_0(
    stage: Callable[[subprocess.Popen[bytes], Path], bool], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*DEMO, "--port", str(free_port())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        eventually(lambda: stage(process, tmp_path), "it has got so far")
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
    assert demo.process.stderr
    assert f"{name} died" in demo.process.stderr.read()
    assert_nothing_listens(demo)


def assert_nothing_listens(demo: Demo) -> None:
    assert len(demo.urls) == 2  # nginx and the verifier's metrics
    for url in demo.urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


def test_a_taken_port_is_one_line_and_exit_status_1() -> None:
    with bind() as taken:
        port = port_of(taken)
        result = subprocess.run([*DEMO, "--port", str(port)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert f"port {port}" in line
    assert "in use" in line
