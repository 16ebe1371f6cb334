"""The canary beside a running nginx whose guard is broken and repaired: it notices each within one round."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.stage import Serve, children, configuration, entry, eventually, free_port
from tests.e2e.test_guard import PlainNginx
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Nginx
from verifier.demo.processes import Child
from verifier.demo.serving import Background
from verifier.tools.canary import CHECKS, Canary, load
from verifier.tools.guard import Guard

MAPPED = ("X-User-ID", "X-Tenant-ID")
POLICIES = {"api": {"rules": [{"path": "/canary", "methods": ["GET"], "scope": ["read"]}]}, "watch": {"mode": "report"}}
CONFIGURATION = {"policies": POLICIES, "headers": {"X-User-ID": "sub", "X-Tenant-ID": "tenant"}}
REFUSALS = {"no_token", "forged_headers", "expired_token", "wrong_signature"}


@dataclass
class Guarded:
    """A running nginx, what its configuration says while all is well, and the canary's file."""

    nginx: Nginx
    block: str
    file: Path
    lenient: Serve
    """A verifier that accepts a token long after it has expired."""

    @contextlib.contextmanager
    def broken(self, old: str, new: str) -> Iterator[None]:
        """Inside, a part of the guard is another one."""
        assert old in self.block
        self._reload(self.block.replace(old, new))
        try:
            yield
        finally:
            self._reload(self.block)

    def _reload(self, block: str) -> None:
        """Let nginx take another configuration, and wait until no worker has the old one."""
        master = self.nginx.child.process.pid
        before = set(children(master))
        self.nginx.config.write_text(self.nginx.gateway.render().replace(self.block, block))
        self.nginx.child.process.send_signal(signal.SIGHUP)
        eventually(lambda: (now := set(children(master))) and not now & before, "nginx has reloaded")

    def secrets(self) -> list[str]:
        """What no log may have."""
        return [self.file.with_name(name).read_text().strip() for name in ("secret", "expired")]

    def once(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The command, for one round; the echo endpoint runs already."""
        command = [sys.executable, "-P", "-m", "verifier", "canary", "--config", str(self.file), "--once", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def guarded(lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port = tmp_path_factory.mktemp("canary"), free_port()
    client_id, secret = lab.add_client("read")
    expired = lab.mint(lab.machine_claims(client_id, ["read"], lifetime=-100))
    (folder / "secret").write_text(f"{secret}\n")
    (folder / "expired").write_text(expired)
    settings = {
        "url": f"http://127.0.0.1:{port}/canary",
        "token": {"url": f"{lab.base}/oauth2/token", "client_id": client_id, "client_secret_file": "secret"},
        "identity": {
            "X-M2M-Client-ID": client_id, "X-M2M-Issuer": "lab", "X-M2M-Role": "", "X-User-ID": client_id,
            "X-Tenant-ID": None,
        },
        "expired_token_file": "expired", "interval": 1,
    }  # fmt: skip
    file = folder / "canary.yaml"
    file.write_text(yaml.safe_dump(settings))
    with ExitStack() as running:
        echo = running.enter_context(Background(Canary(load(file)).echo))
        serve, lenient = (
            running.enter_context(Serve(configuration(entry(lab), leeway=leeway, **CONFIGURATION), folder))
            for leeway in (10, 300)
        )
        block = Guard("api", MAPPED, resource=False).block("nginx")
        for shown, used in (
            ("unix:/run/m2m-verifier/verifier.sock", serve.address),
            ("127.0.0.1:9000", api.address),
            ("proxy_pass http://api;", "proxy_pass http://$behind;"),
            ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ):
            assert shown in block
            block = block.replace(shown, used)
        block += f"map $uri $behind {{ default api; /canary canary; }} upstream canary {{ server {echo.address}; }}"
        nginx = running.enter_context(Nginx(PlainNginx(folder / "nginx", port, [], server_snippet=block)))
        yield Guarded(nginx, block, file, lenient)


def outcomes(canary: Canary) -> dict[str, str]:
    """What one round finds."""
    asyncio.run(canary.round())
    return {check: str(result.outcome) for check, result in canary.results.items()}


def without(line: str) -> tuple[str, str]:
    return line, ""


BREAKS: dict[str, tuple[tuple[str, str], set[str]]] = {
    "no auth_request": (without("auth_request /_m2m;"), REFUSALS | {"good_token"}),
    "a constant 200": (
        ("proxy_pass http://m2m_verifier/verify/api;", "return 200;"),
        REFUSALS | {"good_token"},
    ),
    "a policy in report mode": (("/verify/api;", "/verify/watch;"), REFUSALS),
    "satisfy any": (("satisfy all;", "satisfy any; allow all;"), REFUSALS | {"good_token"}),
    "expired tokens are accepted": (("{serve}", "{lenient}"), {"expired_token"}),
    "underscores": (("underscores_in_headers off", "underscores_in_headers on"), {"forged_headers"}),
    "the auth path is public": (without("internal;"), {"internal_paths"}),
    **{
        f"no {name}": (without(f"proxy_set_header {name} $m2m_{variable};"), {"forged_headers"})
        for name, variable in (("X-M2M-Scope", "scope"), ("X-Tenant-ID", "mapped_x_tenant_id"))
    },
    "no client id": (
        without("proxy_set_header X-M2M-Client-ID $m2m_client_id;"), {"forged_headers", "good_token"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "failing"), BREAKS.values(), ids=BREAKS)
def test_one_round_notices_a_broken_guard_and_the_next_its_repair(
    guarded: Guarded, change: tuple[str, str], failing: set[str]
) -> None:
    canary = Canary(load(guarded.file))
    serve = guarded.block.partition("server ")[2].partition(";")[0]
    old, new = (text.format(serve=serve, lenient=guarded.lenient.address) for text in change)
    well = dict.fromkeys(CHECKS, "pass")

    assert outcomes(canary) == well
    with guarded.broken(old, new):
        assert outcomes(canary) == well | dict.fromkeys(failing, "fail")
    assert outcomes(canary) == well


def test_without_a_verifier_nothing_is_broken_but_a_good_token_does_not_pass(guarded: Guarded) -> None:
    canary = Canary(load(guarded.file))
    with guarded.broken("/verify/api;", "/no-such-path;"):
        assert outcomes(canary) == dict.fromkeys(REFUSALS, "unknown") | {"good_token": "fail", "internal_paths": "pass"}


def test_once_prints_the_results_and_exits_0_1_or_2(guarded: Guarded, tmp_path: Path) -> None:
    well = guarded.once()
    with guarded.broken("auth_request /_m2m;", ""):
        broken = guarded.once()
    settings = yaml.safe_load(guarded.file.read_text())
    del settings["expired_token_file"]
    other = guarded.file.with_name("other.yaml")
    other.write_text(yaml.safe_dump(settings))
    incomplete = guarded.once("--config", str(other))

    assert (well.returncode, well.stdout, well.stderr) == (0, "".join(f"{check}: pass\n" for check in CHECKS), "")
    assert (broken.returncode, broken.stdout.splitlines()[0]) == (
        1, "no_token: fail: the request reached the API (status 200)",
    )  # fmt: skip
    assert (incomplete.returncode, "expired_token: unknown: no token" in incomplete.stdout) == (2, True)


def test_the_running_command_exposes_a_break_and_logs_each_change_once(guarded: Guarded, tmp_path: Path) -> None:
    port, echo_port, log = free_port(), free_port(), tmp_path / "log"
    command = [sys.executable, "-P", "-m", "verifier", "canary", "--config", str(guarded.file), "--host", "127.0.0.1"]
    child = Child([*command, "--metrics-port", str(port), "--echo-port", str(echo_port)], log)

    def metrics(name: str = "check_success") -> dict[str, float]:
        """The samples of a metric by check, empty until it listens."""
        with contextlib.suppress(httpx.TransportError):
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            return {
                labels: float(value)
                for labels, value in re.findall(
                    rf"^m2m_verifier_canary_{name}(?:{{check=\"(.*)\"}})? (.*)$", text, re.M
                )
            }
        return {}

    def rounds(count: int) -> None:
        for _ in range(count):
            before = metrics("last_run_timestamp_seconds")
            eventually(lambda: metrics("last_run_timestamp_seconds") != before, "a round")  # noqa: B023 - called here

    well = dict.fromkeys(CHECKS, 1.0)
    try:
        eventually(lambda: metrics() == well, "all checks pass")
        with guarded.broken("auth_request /_m2m;", ""):
            eventually(lambda: metrics()["no_token"] == 0, "the break is exposed")
            rounds(2)
        eventually(lambda: metrics() == well, "all checks pass again")
        assert set(metrics("check_unknown").values()) == {0}
        echoed = httpx.get(f"http://127.0.0.1:{echo_port}/x?y", headers={"X_M2M_Role": "r", "Authorization": "s"})
        assert echoed.json() == {"query": "y", "headers": [["x_m2m_role", "r"]]}
    finally:
        child.stop(signal.SIGTERM, 10)
    assert child.process.returncode == 0
    written = log.read_text()
    lines = [line.partition("canary: ")[2] for line in written.splitlines() if "check no_token" in line]
    assert lines == [
        "check no_token: pass",
        "check no_token: fail: the request reached the API (status 200)",
        "check no_token: pass",
    ]
    assert [secret for secret in guarded.secrets() if secret in written] == []
