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
from tests.e2e.test_guard import PlainNginx, block
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Nginx
from verifier.demo.processes import Child
from verifier.demo.serving import Background
from verifier.tools.canary import CHECKS, Canary, load

POLICIES = {"api": {"rules": [{"path": "/canary", "methods": ["GET"], "scope": ["read"]}]}, "watch": {"mode": "report"}}
CONFIGURATION = {"policies": POLICIES, "headers": {"X-User-ID": "sub", "X-Tenant-ID": "tenant"}}
COMMAND = [sys.executable, "-P", "-m", "verifier", "canary", "--config"]
REFUSALS = ("no_token", "forged_headers", "expired_token", "wrong_signature")


@dataclass
class Guarded:
    """A running nginx, what its configuration says while all is well, and the canary's file."""

    nginx: Nginx
    block: str
    file: Path
    serve: Serve
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

    def _reload(self, used: str) -> None:
        """Let nginx take another configuration, and wait until no worker has the old one."""
        master = self.nginx.child.process.pid
        before = set(children(master))
        self.nginx.config.write_text(self.nginx.gateway.render().replace(self.block, used))
        self.nginx.child.process.send_signal(signal.SIGHUP)
        eventually(lambda: (now := set(children(master))) and not now & before, "nginx has reloaded")


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
        text = block(
            serve.config,
            ("unix:/run/m2m-verifier/verifier.sock", serve.address),
            ("127.0.0.1:9000", api.address),
            ("proxy_pass http://api;", "proxy_pass http://$behind;"),
            ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        )
        text += f"map $uri $behind {{ default api; /canary canary; }} upstream canary {{ server {echo.address}; }}"
        nginx = running.enter_context(Nginx(PlainNginx(folder / "nginx", port, [], server_snippet=text)))
        yield Guarded(nginx, text, file, serve, lenient)


def outcomes(canary: Canary) -> dict[str, str]:
    """What one round finds."""
    asyncio.run(canary.round())
    return {check: str(result.outcome) for check, result in canary.results.items()}


FAIL, UNKNOWN = dict.fromkeys(REFUSALS, "fail"), dict.fromkeys(REFUSALS, "unknown")
FORGED, GOOD = {"forged_headers": "fail"}, {"good_token": "fail"}
# A part of the block, what it becomes, and the checks that do not pass.
BREAKS = {
    "no auth_request": ("auth_request /_m2m;", "", FAIL | GOOD),
    "a constant 200": ("proxy_pass http://m2m_verifier/verify/api;", "return 200;", FAIL | GOOD),
    "a policy in report mode": ("/verify/api;", "/verify/watch;", FAIL),
    "no verifier": ("/verify/api;", "/no-such-path;", UNKNOWN | GOOD),
    "satisfy any": ("satisfy all;", "satisfy any; allow all;", FAIL | GOOD),
    "expired tokens are accepted": ("{serve}", "{lenient}", {"expired_token": "fail"}),
    "underscores": ("underscores_in_headers off", "underscores_in_headers on", FORGED),
    "the auth path is public": ("internal;", "", {"internal_paths": "fail"}),
    "no scope": ("proxy_set_header X-M2M-Scope $m2m_scope;", "", FORGED),
    "no mapped header": ("proxy_set_header X-Tenant-ID $m2m_mapped_x_tenant_id;", "", FORGED),
    "no client id": ("proxy_set_header X-M2M-Client-ID $m2m_client_id;", "", FORGED | GOOD),
}


@pytest.mark.parametrize(("old", "new", "noticed"), BREAKS.values(), ids=BREAKS)
def test_one_round_notices_a_broken_guard_and_the_next_its_repair(
    guarded: Guarded, old: str, new: str, noticed: dict[str, str]
) -> None:
    canary = Canary(load(guarded.file))
    old, new = (text.format(serve=guarded.serve.address, lenient=guarded.lenient.address) for text in (old, new))
    well = dict.fromkeys(CHECKS, "pass")

    assert outcomes(canary) == well
    with guarded.broken(old, new):
        assert outcomes(canary) == well | noticed
    assert outcomes(canary) == well


def once(file: Path) -> tuple[int, str, list[str]]:
    """Exit status, standard error and output of one round; the echo endpoint runs already."""
    done = subprocess.run([*COMMAND, str(file), "--once"], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr, done.stdout.splitlines()


def test_once_prints_the_results_and_exits_0_1_or_2(guarded: Guarded) -> None:
    incomplete = guarded.file.with_name("incomplete.yaml")
    incomplete.write_text(guarded.file.read_text().replace("expired_token_file: expired\n", ""))
    with guarded.broken("auth_request /_m2m;", ""):
        status, _, (first, *_) = once(guarded.file)
    without_expired, _, printed = once(incomplete)

    assert once(guarded.file) == (0, "", [f"{check}: pass" for check in CHECKS])
    assert (status, first) == (1, "no_token: fail: the request reached the API (status 200)")
    assert (without_expired, printed[2]) == (2, "expired_token: unknown: no token of this canary has expired yet")


def test_the_running_command_exposes_a_break_and_logs_each_change_once(guarded: Guarded, tmp_path: Path) -> None:
    port, echo_port, log = free_port(), free_port(), tmp_path / "log"
    ports = ["--host", "127.0.0.1", "--metrics-port", str(port), "--echo-port", str(echo_port)]
    child = Child([*COMMAND, str(guarded.file), *ports], log)

    def metrics(name: str = "check_success") -> dict[str, float]:
        """The samples of a metric by check, empty until it listens."""
        pattern = rf'^m2m_verifier_canary_{name}(?:{{check="(.*)"}})? (.*)$'
        with contextlib.suppress(httpx.TransportError):
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            return {check: float(value) for check, value in re.findall(pattern, text, re.MULTILINE)}
        return {}

    def two_more_rounds() -> bool:
        ends.update(metrics("last_run_timestamp_seconds").values())
        return len(ends) > 2

    ends: set[float] = set()
    well = dict.fromkeys(CHECKS, 1.0)
    try:
        eventually(lambda: metrics() == well, "all checks pass")
        with guarded.broken("auth_request /_m2m;", ""):
            eventually(lambda: metrics()["no_token"] == 0, "the break is exposed")
            eventually(two_more_rounds, "two more rounds")
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
    secrets = [guarded.file.with_name(name).read_text().strip() for name in ("secret", "expired")]
    assert [secret for secret in secrets if secret in written] == []
