"""A real Prometheus scraping a real verifier under mixed traffic, for the tests and for the pictures.

Beside them a small server replays the oauth2-proxy fixture with counters that grow. Everything is on the loopback
address and stops with the `with` block.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import math
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from verifier.demo.issuer import Issuer, SigningKey
from verifier.demo.processes import Child, Verifier
from verifier.demo.serving import Background, bind, free_port, port_of

ROOT = Path(__file__).parent.parent
FIXTURE = ROOT / "tests" / "ops" / "fixtures" / "oauth2-proxy-7.15.6.prom"
RULES = ROOT / "grafana" / "alerts"
WINDOW = "15s"
"""Stands for $__rate_interval at a scrape interval of 1 s."""
RATE = 40
"""Calls per second."""


def ask_with(expr: str) -> str:
    """An expression of a panel as Grafana sends it, with every policy selected."""
    return expr.replace("$__rate_interval", WINDOW).replace("$policy", ".*")


def binary(name: str) -> str:
    """Where `prometheus` or `promtool` is. Raises RuntimeError if the Debian package is not installed."""
    if found := shutil.which(name):
        return found
    raise RuntimeError(f"{name} is not installed: run `make prometheus`")


class Prometheus:
    """`with Prometheus(targets, directory) as p:` scrapes each job's addresses every second, with our rules."""

    def __init__(self, targets: dict[str, list[str]], directory: Path) -> None:
        self._directory = directory
        jobs = [{"job_name": job, "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()]
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config = {"global": every, "rule_files": [f"{RULES}/*.yaml"], "scrape_configs": jobs}
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Prometheus:
        command = [binary("prometheus"), f"--config.file={self._directory}/prometheus.yaml"]
        command += [f"--storage.tsdb.path={self._directory}/data", f"--web.listen-address={self.url[7:]}"]
        self._child = Child(command, self._directory / "prometheus.log")
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=30)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self._client.get("/-/ready").status_code == 200:
                    return self
            if not self._child.alive or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"prometheus did not start\n{self._child.log}")
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._child.stop(signal.SIGTERM, 10)

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API. Raises ValueError, with its words, for anything but a success."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(answer["error"])
        return answer["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found


def replay() -> Starlette:
    """The fixture at /metrics: each counter grows by 40 times its recorded value a minute, in waves of its own."""
    started = time.monotonic()
    lines = FIXTURE.read_text().splitlines()

    def grown(line: str) -> str:
        if re.match(r"oauth2_proxy_requests_in_flight ", line):
            return f"oauth2_proxy_requests_in_flight {round(2 + 2 * math.sin((time.monotonic() - started) / 31))}"
        if not re.match(r"oauth2_proxy_|process_cpu_seconds_total ", line):
            return line
        name, _, value = line.rpartition(" ")
        minutes = (time.monotonic() - started) / 60
        code = re.search(r'code="(\d+)"', name)
        phase = float(code[1]) if code else 0.0
        wave = 0.2 * (math.sin(4 * minutes + phase) - math.sin(phase))  # its slope stays below 1: no counter falls
        return f"{name} {float(value) * (1 + 40 * (minutes + wave)):.6f}"

    async def metrics(_: Request) -> PlainTextResponse:
        return PlainTextResponse("\n".join(map(grown, lines)) + "\n")

    return Starlette(routes=[Route("/metrics", metrics)])


class Call(NamedTuple):
    """A subrequest as nginx sends it, and how often among the others."""

    weight: float
    policy: str
    method: str
    path: str
    token: Callable[[], str]


class Live:
    """`with Live() as live:` runs it all; `live.prometheus` answers. Traffic comes from one thread, gently."""

    def __init__(self, replicas: int = 1) -> None:
        self._replicas = replicas
        self._stop = threading.Event()

    def __enter__(self) -> Live:
        with contextlib.ExitStack() as running:
            directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="m2m-live-")))
            self._issuers = [self._issuer(running, pool) for pool in ("us-east-1_Homelab", "us-east-1_Partner")]
            self._away = Issuer("http://127.0.0.1:9", pool="us-east-1_Staging")  # no process listens there
            folders = [Path(tempfile.mkdtemp(dir=directory)) for _ in range(self._replicas)]
            self._verifiers = [running.enter_context(Verifier(self._configuration(), folder)) for folder in folders]
            proxy = running.enter_context(Background(replay()))
            metrics = [f"127.0.0.1:{verifier.metrics_port}" for verifier in self._verifiers]
            jobs = {"m2m-verifier": metrics, "oauth2-proxy": [proxy.address]}
            self.prometheus = running.enter_context(Prometheus(jobs, directory))
            traffic = threading.Thread(target=self._drive, daemon=True)
            running.callback(traffic.join)
            running.callback(self._stop.set)
            traffic.start()
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @staticmethod
    def _issuer(running: contextlib.ExitStack, pool: str) -> Issuer:
        listener = bind()
        issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}", pool=pool)
        running.enter_context(Background(issuer.app, listener))
        return issuer

    def _configuration(self, *, outage: bool = False) -> dict[str, Any]:
        named = list(zip(("homelab", "partner"), self._issuers, strict=True))
        if outage:
            named.append(("staging", self._away))
        issuers = [
            {"name": name, "profile": "cognito", "issuer": issuer.url, "jwks_url": issuer.jwks_url}
            for name, issuer in named
        ]
        rules = [
            {"path": "/db/**", "methods": ["GET", "HEAD"], "scope": ["read"]},
            {"path": "/db/**", "methods": ["POST", "PUT", "PATCH", "DELETE"], "scope": ["write"]},
        ]
        return {
            "issuers": issuers,
            "scope_prefix": self._issuers[0].prefix,
            "policies": {
                "api": {"rules": rules},
                "reports": {"scope": ["reports"], "mode": "report"},
                "partners": {"issuers": ["partner"]},
            },
            "revoked": {"clients": ["old-agent"]},
        }

    def configure(self, *, outage: bool = False) -> None:
        """The next reload is accepted. `outage`: an issuer is added whose keys cannot be had; its tokens get 503."""
        self.write(yaml.safe_dump(self._configuration(outage=outage)))

    def write(self, text: str) -> None:
        """Replace every verifier's configuration file."""
        for verifier in self._verifiers:
            new = verifier.config.with_suffix(".new")
            new.write_text(text)
            new.replace(verifier.config)

    def _calls(self) -> list[Call]:
        homelab, partner = self._issuers

        def kept(issuer: Issuer, client: str, *scopes: str, lifetime: float = 3600) -> Callable[[], str]:
            token = issuer.mint(issuer.machine_claims(client, scopes, lifetime))
            return lambda: token

        def fresh(issuer: Issuer, client: str, *scopes: str) -> Callable[[], str]:
            return lambda: issuer.mint(issuer.machine_claims(client, scopes))

        unknown = Issuer("http://127.0.0.1:9", pool="us-east-1_Unknown")
        forged = homelab.mint(
            homelab.machine_claims("etl-nightly", ["read", "write"]), key=SigningKey(homelab.keys[0].kid)
        )
        person = homelab.mint(homelab.person_claims("alice", "browser-app"))
        etl, agent = kept(homelab, "etl-nightly", "read", "write"), kept(homelab, "support-agent", "read")
        return [
            Call(34, "api", "GET", "/db/orders", etl),
            Call(12, "api", "POST", "/db/orders", etl),
            Call(18, "api", "GET", "/db/customers", agent),
            Call(10, "partners", "GET", "/feed", kept(partner, "acme-sync", "read")),
            Call(6, "api", "GET", "/db/orders", fresh(homelab, "cron-jobs", "read")),
            Call(4, "partners", "GET", "/feed", fresh(partner, "globex-sync", "read")),
            Call(4, "reports", "GET", "/monthly", kept(homelab, "bi-dashboard", "read", "reports")),
            Call(3, "reports", "GET", "/monthly", agent),  # would be denied
            Call(3, "api", "DELETE", "/db/orders/7", agent),
            Call(1, "api", "GET", "/admin", agent),
            Call(1, "partners", "GET", "/feed", agent),
            Call(1, "api", "GET", "/db/orders", lambda: person),
            Call(0.5, "typo", "GET", "/db/orders", etl),
            Call(3, "api", "GET", "/db/orders", lambda: ""),
            Call(2, "api", "GET", "/db/orders", kept(homelab, "lab-sensor", "read", lifetime=-60)),
            Call(0.7, "api", "GET", "/db/orders", lambda: forged),
            Call(0.7, "api", "GET", "/db/orders", kept(unknown, "who", "read")),
            Call(1, "api", "GET", "/db/orders", kept(homelab, "old-agent", "read")),
            Call(2, "api", "GET", "/db/orders", kept(self._away, "canary", "read")),
        ]

    def _drive(self) -> None:
        calls = self._calls()
        chance = random.Random(1)  # noqa: S311 - the same mixture each time
        connections = [http.client.HTTPConnection(verifier.address, timeout=10) for verifier in self._verifiers]
        for call, connection in zip(self._mixed(calls, chance), itertools.cycle(connections), strict=False):
            token = call.token()
            headers = {"X-Original-URL": f"https://api.lab.test{call.path}", "X-Original-Method": call.method}
            if token:
                headers["Authorization"] = f"Bearer {token}"
            connection.request("GET", f"/verify/{call.policy}", headers=headers)
            connection.getresponse().read()
        for connection in connections:
            connection.close()

    def _mixed(self, calls: list[Call], chance: random.Random) -> Iterator[Call]:
        yield from calls  # each once at first: no series is missing by chance
        for number in itertools.count():
            wave = 1 + 0.35 * math.sin(number / RATE / 20)
            if self._stop.wait(chance.expovariate(RATE * wave)):
                return
            yield chance.choices(calls, [call.weight for call in calls])[0]
