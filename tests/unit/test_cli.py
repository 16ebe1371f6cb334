"""The commands: their exit status and what they print."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support import SigningKey, jwks
from verifier.cli import main

pytestmark = pytest.mark.usefixtures("no_environment")

WriteConfig = Callable[[str | dict[str, Any]], Path]


@pytest.fixture
def good(write_config: WriteConfig, tmp_path: Path, signer: SigningKey) -> str:
    """The path of a configuration that needs no network."""
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    issuer = {"name": "lab", "issuer": "https://issuer.example", "audience": "api", "jwks_file": "keys.json"}
    return str(write_config({"issuers": [issuer], "policies": {"api": {}}}))


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "verifier", *arguments], input=given, capture_output=True, text=True, timeout=60
    )


def test_check_of_a_good_configuration_exits_0(good: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", good]) == 0
    assert re.search(r"ok: .*lab.*default, api", capfd.readouterr().out)


def test_check_of_a_broken_configuration_exits_2_and_prints_every_error(
    write_config: WriteConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_config("leeway: -1\nissuers: []\naudits: all\n")

    assert main(["check", "--config", str(path)]) == 2
    told = capfd.readouterr()
    text = told.out + told.err
    assert all(f"{path}:{line}: {key}: " in text for line, key in ((1, "leeway"), (2, "issuers"), (3, "audits")))


def test_check_without_any_configuration_says_how_to_begin(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    told = capfd.readouterr()
    assert "COGNITO_USER_POOL_ID" in told.out + told.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["check", "--x"],
        ["explain"],
        ["explain", "--url", "https://h/", "--token", "x"],
        ["explain", "--url", "https://h/", "eyJhbGciOiJSUzI1NiJ9.e30.x"],
        ["serve", "--port", "http"],
    ],
    ids=" ".join,
)
def test_arguments_that_no_command_has_exit_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """A token among them: it would be read in the list of processes."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2


def test_serve_without_workers_exits_2(good: str) -> None:
    assert run("serve", "--config", good, "--workers", "0").returncode == 2


def test_serve_on_an_address_that_is_not_ours_exits_1(good: str) -> None:
    done = run("serve", "--config", good, "--host", "192.0.2.1", "--port", "0")

    assert (done.returncode, "cannot listen" in done.stderr) == (1, True)


def test_explain_reads_the_token_from_stdin_and_exits_1_when_it_is_denied(good: str) -> None:
    done = run("explain", "--config", good, "--url", "https://api.example/", given="no.token\n")

    assert (done.returncode, done.stderr) == (1, "")
    assert "malformed_token" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_and_ends_with_0_when_it_is_told_to(good: str, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "verifier", "serve", "--config", good, "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", "0", "--metrics-port", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "it ended before it listened"
            found = re.search(r"listening on \S*?:(\d+), metrics on \S*?:(\d+)", line)
        statuses = [_status(int(found[1]), "/health"), _status(int(found[2]), "/metrics")]
        process.send_signal(number)

        assert (process.wait(20), statuses) == (0, [200, 200])


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status
