"""The commands: their exit status, what they print, and what they execute."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from verifier import __version__
from verifier.cli import main

pytestmark = pytest.mark.usefixtures("no_environment")

WriteConfig = Callable[[str | dict[str, Any]], Path]
ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-P", "-m", "verifier"]
SCRIPT = Path(sys.executable).with_name("m2m-verifier")


@pytest.fixture
def good(write_config: WriteConfig, offline: dict[str, Any]) -> str:
    """The path of a configuration that needs no network."""
    return str(write_config(offline | {"policies": {"api": {}}}))


def environment() -> dict[str, str]:
    """This process's environment, as it was before ``main`` ran here, with the verifier that is tested."""
    return {name: os.environ[name] for name in os.environ if name != "PYTHONSAFEPATH"} | {"PYTHONPATH": str(ROOT)}


def run(*arguments: str, command: list[str] = MODULE, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"input": "", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*command, *arguments], text=True, timeout=60, env=environment(), **options)


def test_a_reader_that_closes_standard_output_ends_a_command_without_a_traceback(good: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("check", "--config", good, stdout=writer)
    os.close(writer)

    assert (done.returncode, done.stderr) == (141, "")


@contextmanager
def serving(good: str, *arguments: str, command: list[str] = MODULE, cwd: Path | None = None) -> Iterator[Any]:
    """A ``serve`` that listens: the process, its port and its metrics port."""
    addresses = ["--host", "127.0.0.1", "--port", "0", "--metrics-port", "0"]
    with subprocess.Popen(
        [*command, "serve", "--config", good, *addresses, *arguments],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=cwd, env=environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            found = None
            while found is None:
                line = process.stderr.readline()
                assert line, "it ended before it listened"
                found = re.search(r"listening on (?:\S*?:(\d+)|/\S+), metrics on \S*?:(\d+)", line)
            yield process, int(found[1] or 0), int(found[2])
        finally:
            process.terminate()


def get(port: int, path: str) -> int:
    return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=60).status_code


def test_check_of_a_valid_configuration_exits_0_and_names_the_headers_that_a_guard_must_list(
    write_config: WriteConfig, lab: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_config({**lab, "headers": {"X-User-ID": "sub"}, "policies": {"api": {}}})

    assert main(["check", "--config", str(path)]) == 0
    first, *_, last = capfd.readouterr().out.splitlines()
    assert first == "ok: issuers lab; policies default, api"
    assert last == (
        "nginx.ingress.kubernetes.io/auth-response-headers: "
        '"X-M2M-Client-ID,X-M2M-Scope,X-M2M-Role,X-M2M-Issuer,X-User-ID"'
    )


def test_check_of_a_broken_configuration_exits_2_and_prints_every_error(
    write_config: WriteConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_config("leeway: -1\nissuers: []\naudits: all\n")

    assert main(["check", "--config", str(path)]) == 2
    printed = capfd.readouterr().err
    assert all(f"{path}:{line}: {key}: " in printed for line, key in ((1, "leeway"), (2, "issuers"), (3, "audits")))


@pytest.mark.parametrize(
    ("keys", "status"), [({"jwks_file": "keys.json"}, 0), ({"jwks_url": "http://127.0.0.1:1/keys"}, 2)]
)
def test_check_online_exits_2_where_an_issuer_has_no_keys(
    good: str, write_config: WriteConfig, capfd: pytest.CaptureFixture[str], keys: dict[str, str], status: int
) -> None:
    path = write_config({"issuers": [{"name": "lab", "issuer": "https://a.example", "audience": "any", **keys}]})

    assert main(["check", "--online", "--config", str(path)]) == status
    assert "issuer lab: " in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "", "nonsense", "check --x", "explain", "explain --url https://h/ --token x", "serve --port http",
        "serve --port 65536", "serve --workers 0", "serve --workers 65",
        "serve --uds /nowhere/m2m.sock --uds-mode 888", "serve --uds /nowhere/m2m.sock --uds-mode rw",
        "explain --url https://h/ eyJhbGciOiJSUzI1NiJ9.e30.x",  # it would be visible in the list of processes
    ],
)  # fmt: skip
def test_wrong_arguments_exit_2(arguments: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())

    assert (caught.value.code, capfd.readouterr().out) == (2, "")


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"m2m-verifier {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--uds-mode 0660", 2, "--uds-mode: needs --uds\n"),
        ("--host 192.0.2.1 --port 0 --metrics-port 0", 1,
         "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
        ("--host 127.0.0.1 --metrics-port 0 --uds {folder}/missing/m2m.sock", 1,
         "cannot listen on {folder}/missing/m2m.sock: there is no folder {folder}/missing\n"),
        ("--host 127.0.0.1 --metrics-port 0 --uds {folder}", 1,
         "cannot listen on {folder}: Address already in use\n"),
    ],
    ids=["a socket's mode without a socket", "another machine's address", "a missing folder", "a folder"],
)  # fmt: skip
def test_serve_says_why_it_cannot_start(good: str, tmp_path: Path, arguments: str, status: int, message: str) -> None:
    done = run("serve", "--config", good, *arguments.format(folder=tmp_path).split())

    assert done.returncode == status
    assert done.stderr.startswith(message.format(folder=tmp_path))
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("arguments", "mode"), [([], 0o660), (["--uds-mode", "0606"], 0o606)])
def test_the_mode_of_a_unix_socket_is_0660_or_the_given_one(
    good: str, tmp_path: Path, arguments: list[str], mode: int
) -> None:
    path = tmp_path / "m2m.sock"
    with serving(good, "--uds", str(path), *arguments):
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("arguments", "status", "printed"),
    [
        pytest.param(["explain", "--url", "https://api.example/"], 1, "malformed_token", id="explain"),
        pytest.param(["guard", "--proxy", "nginx", "--policy", "default"], 0, "auth_request", id="guard"),
    ],
)
def test_a_command_that_listens_nowhere_needs_no_valid_address(
    good: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, printed: str
) -> None:
    monkeypatch.setenv("M2M_PORT", "tcp://10.96.0.1:80")
    done = run(*arguments, "--config", good, input="no.token\n")

    assert (done.returncode, done.stderr) == (status, "")
    assert printed in done.stdout


def test_serve_answers_and_ends_with_0_even_where_a_variable_that_is_not_needed_is_invalid(
    good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2M_PORT", "tcp://10.96.0.1:80")
    with serving(good) as (process, port, metrics_port):
        statuses = [get(port, "/health"), get(metrics_port, "/metrics")]
        process.terminate()

        assert (process.wait(60), statuses) == (0, [200, 200])


# --- the working directory ---


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with a module for each name that may be imported; each leaves a file ``executed`` behind."""
    folder = tmp_path / "planted"
    names = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) | {"sitecustomize"}
    code = f"import _io; _io.open({str(folder / 'executed')!r}, 'a').write(__name__ + ' ')\n"
    (folder / "verifier").mkdir(parents=True)
    for name in (*filter(str.isidentifier, names), *(f"verifier/{own}" for own in ("__init__", "__main__", "cli"))):
        (folder / f"{name}.py").write_text(code)
    return folder


@pytest.fixture(params=[MODULE, [str(SCRIPT)]], ids=["module", "script"])
def command(request: pytest.FixtureRequest) -> list[str]:
    if request.param != MODULE and not SCRIPT.exists():
        pytest.skip("needs the installed script")
    found: list[str] = request.param
    return found


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("check --config {config}", 0), ("lint --config {config} {config}", 0),
     ("explain --config {config} --url https://api.example/", 1), ("--version", 0)],
)  # fmt: skip
def test_a_command_executes_nothing_in_the_working_directory(
    planted: Path, good: str, command: list[str], arguments: str, status: int
) -> None:
    done = run(*arguments.format(config=good).split(), command=command, cwd=planted)

    assert (done.returncode, done.stderr) == (status, "")
    assert not (planted / "executed").exists()


def test_serve_and_its_workers_execute_nothing_in_the_working_directory(
    planted: Path, good: str, command: list[str]
) -> None:
    with serving(good, "--workers", "2", command=command, cwd=planted) as (process, port, _):
        status = get(port, "/health")
        process.terminate()

        assert (status, process.wait(60)) == (200, 0)
    assert not (planted / "executed").exists()


def test_without_safe_path_the_planted_modules_would_be_executed(planted: Path) -> None:
    """Shows that the tests above can fail."""
    run("--version", command=[sys.executable, "-m", "verifier"], cwd=planted)

    assert (planted / "executed").exists()
