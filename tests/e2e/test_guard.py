"""The block that `guard` prints, run by a real nginx, and the canary, which notices when it is broken and repaired.

tests/proxies runs one table of requests and forgeries through the blocks of all proxies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
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

from tests.e2e.stage import Answer, Serve, children, configuration, entry, eventually, exchange, free_port, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Nginx, PlainNginx
from verifier.demo.processes import Child
from verifier.demo.serving import Background
from verifier.tools.canary import CHECKS, Canary, load

RULES = [
    {"path": "/canary", "methods": ["GET"], "scope": ["read"]},
    {"path": "/db/**", "methods": ["GET"]},
    {"path": "/db/**", "methods": ["POST"], "scope": ["write"]},
]
CONFIGURATION = {
    "policies": {"api": {"rules": RULES}, "watch": {"mode": "report"}},
    "headers": {"X-User-ID": "sub", "X-Tenant-ID": "tenant"},
}
VERIFIER = [sys.executable, "-P", "-m", "verifier"]


@dataclass
class Guarded:
    """A running nginx and the block in its configuration, the verifier's Unix socket, and the canary's file."""

    nginx: Nginx
    block: str
    uds: Path
    issuer: Issuer
    canary: Path
    lenient: Serve
    """A verifier that accepts a token long after it has expired."""

    def post(self, scope: str, body: str = "") -> Answer:
        """The answer to a POST that says it is a GET, with a token."""
        token = self.issuer.mint(self.issuer.machine_claims("etl", [scope]))
        lines = "X-Original-Method: GET", f"Content-Length: {len(body)}"
        head = request("/db/x", *lines, method="POST", token=token)
        return exchange(self.nginx.gateway.port, head + body.encode())

    def connections(self) -> set[str]:
        """The verifier's ends of open connections, by inode."""
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {fields[6] for fields in sockets if fields[5:] and fields[5] == "03" and fields[-1] == str(self.uds)}

    @contextlib.contextmanager
    def broken(self, old: str, new: str) -> Iterator[None]:
        """Inside, a part of the block is another one."""
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
    folder, port = tmp_path_factory.mktemp("guard"), free_port()
    config, canary, uds = (folder / name for name in ("verifier.json", "canary.yaml", "verifier.sock"))
    config.write_text(json.dumps(configuration(entry(lab), **CONFIGURATION)))
    client_id, secret = lab.add_client("read")
    (folder / "secret").write_text(f"{secret}\n")
    (folder / "expired").write_text(lab.mint(lab.machine_claims(client_id, ["read"], lifetime=-100)))
    identity = {"X-M2M-Client-ID": client_id, "X-M2M-Issuer": "lab", "X-M2M-Role": "", "X-User-ID": client_id}
    settings = {
        "url": f"http://127.0.0.1:{port}/canary",
        "token": {"url": f"{lab.base}/oauth2/token", "client_id": client_id, "client_secret_file": "secret"},
        "identity": identity | {"X-Tenant-ID": None},
        "expired_token_file": "expired",
        "interval": 1,
    }
    canary.write_text(yaml.safe_dump(settings))
    printed = [*VERIFIER, "guard", "--proxy", "nginx", "--policy", "api", "--config", str(config)]
    block = subprocess.check_output(printed, text=True)
    with ExitStack() as running:
        echo = running.enter_context(Background(Canary(load(canary)).echo))
        for shown, used in (
            ("/run/m2m-verifier/verifier.sock", str(uds)),
            ("127.0.0.1:9000", api.address),
            ("127.0.0.1:8080", f"127.0.0.1:{port}"),
            ("proxy_pass http://api;", "proxy_pass http://$behind; client_max_body_size 4m;"),
        ):
            assert block.count(shown) == 1
            block = block.replace(shown, used)
        block += f"map $uri $behind {{ default api; /canary canary; }} upstream canary {{ server {echo.address}; }}"
        serve = [*VERIFIER, "serve", "--config", str(config), "--uds", str(uds), "--host", "127.0.0.1"]
        verifier = Child([*serve, "--metrics-port", str(free_port())], folder / "verifier.log")
        running.callback(verifier.stop, signal.SIGTERM, 10)
        direct = running.enter_context(httpx.Client(transport=httpx.HTTPTransport(uds=str(uds))))
        eventually(lambda: uds.exists() and direct.get("http://m2m/ready").is_success, "the verifier is ready")
        lenient = running.enter_context(Serve(configuration(entry(lab), leeway=300, **CONFIGURATION), folder))
        nginx = running.enter_context(Nginx(PlainNginx(folder / "nginx", port, [], server_snippet=block)))
        yield Guarded(nginx, block, uds, lab, canary, lenient)


def test_nginx_passes_on_the_reason_of_a_refusal_and_the_challenge_of_a_401(guarded: Guarded) -> None:
    unauthorized = exchange(guarded.nginx.gateway.port, request("/db/x"))
    forbidden = guarded.post("read")

    assert (unauthorized.status, unauthorized.headers["x-m2m-reason"]) == (401, "missing_token")
    assert unauthorized.headers["www-authenticate"].startswith('Bearer realm="api"')
    assert (forbidden.status, forbidden.headers["x-m2m-reason"]) == (403, "insufficient_scope")


def test_a_body_may_be_as_large_as_the_api_allows_and_the_connection_to_the_verifier_stays_open(
    guarded: Guarded,
) -> None:
    guarded.post("write")
    before = guarded.connections()
    answer = guarded.post("write", "x" * 2_000_000)

    assert (answer.status, answer.json["body"] == "x" * 2_000_000) == (200, True)
    assert guarded.connections() == before != set()


def outcomes(canary: Canary) -> dict[str, str]:
    """What one round finds."""
    asyncio.run(canary.round())
    return {check: str(result.outcome) for check, result in canary.results.items()}


REFUSALS = ("no_token", "forged_headers", "expired_token", "wrong_signature")
FAIL, UNKNOWN = dict.fromkeys(REFUSALS, "fail"), dict.fromkeys(REFUSALS, "unknown")
FORGED, GOOD = {"forged_headers": "fail"}, {"good_token": "fail"}
# A part of the block, what it becomes, and the checks that do not pass.
BREAKS = {
    "no auth_request": ("auth_request /_m2m;", "", FAIL | GOOD),
    "a constant 200": ("proxy_pass http://m2m_verifier/verify/api;", "return 200;", FAIL | GOOD),
    "a policy in report mode": ("/verify/api;", "/verify/watch;", FAIL),
    "no verifier": ("/verify/api;", "/no-such-path;", UNKNOWN | GOOD),
    "satisfy any": ("satisfy all;", "satisfy any; allow all;", FAIL | GOOD),
    "expired tokens are accepted": ("unix:{uds}", "{lenient}", {"expired_token": "fail"}),
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
    canary = Canary(load(guarded.canary))
    old, new = (text.format(uds=guarded.uds, lenient=guarded.lenient.address) for text in (old, new))
    well = dict.fromkeys(CHECKS, "pass")

    assert outcomes(canary) == well
    with guarded.broken(old, new):
        assert outcomes(canary) == well | noticed
    assert outcomes(canary) == well


def once(file: Path) -> tuple[int, str, list[str]]:
    """Exit status, standard error and output of one round; the echo endpoint runs already."""
    done = subprocess.run(
        [*VERIFIER, "canary", "--config", str(file), "--once"], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr, done.stdout.splitlines()


def test_once_prints_the_results_and_exits_0_1_or_2(guarded: Guarded) -> None:
    incomplete = guarded.canary.with_name("incomplete.yaml")
    incomplete.write_text(guarded.canary.read_text().replace("expired_token_file: expired\n", ""))
    with guarded.broken("auth_request /_m2m;", ""):
        status, _, (first, *_) = once(guarded.canary)
    without_expired, _, printed = once(incomplete)

    assert once(guarded.canary) == (0, "", [f"{check}: pass" for check in CHECKS])
    assert (status, first) == (1, "no_token: fail: the request reached the API (status 200)")
    assert (without_expired, printed[2]) == (2, "expired_token: unknown: no token of this canary has expired yet")


def test_the_running_command_exposes_a_break_and_logs_each_change_once(guarded: Guarded, tmp_path: Path) -> None:
    port, echo_port, log = free_port(), free_port(), tmp_path / "log"
    ports = ["--host", "127.0.0.1", "--metrics-port", str(port), "--echo-port", str(echo_port)]
    child = Child([*VERIFIER, "canary", "--config", str(guarded.canary), *ports], log)

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
    secrets = [guarded.canary.with_name(name).read_text().strip() for name in ("secret", "expired")]
    assert [secret for secret in secrets if secret in written] == []
