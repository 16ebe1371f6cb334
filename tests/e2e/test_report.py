"""The audit lines of a real `serve` behind nginx, reported and replayed by the command."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stage import PATIENCE, Serve, configuration, entry, exchange, free_port, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Location, Nginx
from verifier.demo.serving import Background

RULES = [
    {"path": "/db/**", "methods": ["OPTIONS"], "token": "none"},
    {"path": "/db/**", "methods": ["GET"], "scope": ["read"]},
    {"path": "/db/**", "methods": ["POST"], "any_scope": ["write", "admin"]},
    {"path": "/**", "methods": ["GET"]},
]
POLICIES = {
    "api": {"rules": RULES, "clients": ["etl", "ci"]},
    "watched": {"scope": ["admin"], "mode": "report"},
}
LOCATIONS = (
    Location("/db", auth="/verify/api"),
    Location("/watched", auth="/verify/watched"),
    Location("/narrow", auth="/verify/api?scope=write"),
)
REQUESTS = [
    ("etl", ["read", "unused"], "GET", "/db/a"), ("etl", ["read", "unused"], "GET", "/db/a?secret=1"),
    ("etl", ["read"], "POST", "/db/a"), ("ci", ["write"], "POST", "/db/b"), ("ci", ["write"], "DELETE", "/db/b"),
    ("ci", ["write"], "GET", "/narrow/x"), ("guest", ["read"], "GET", "/db/a"), ("etl", ["read"], "GET", "/db/%2f"),
    ("etl", ["read"], "GET", "/watched"), (None, [], "GET", "/db/a"), (None, [], "OPTIONS", "/db/a"),
]  # fmt: skip


@dataclass
class Recorded:
    """A gzip file of audit lines, and the configuration that was in force."""

    lines: Path
    config: Path

    def report(self, *options: str) -> tuple[int, Any]:
        """Exit status and report."""
        command = [sys.executable, "-P", "-m", "verifier", "report", str(self.lines), "--format", "json", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("M2M_")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def replay(self, *options: str) -> tuple[int, list[tuple[str, str, int]]]:
        """Exit status, and what would be refused: client, cause and number."""
        status, report = self.report("--config", str(self.config), *options)
        refused = report["replay"]["would_be_refused"]
        return status, sorted((one["client_id"], one["cause"], one["requests"]) for one in refused)


@pytest.fixture(scope="module")
def recorded(lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("report")
    with Serve(configuration(entry(lab), audit="all", policies=POLICIES), folder) as serve:
        gateway = Gateway(folder / "front", free_port(), [serve.address], {"api": api.address}, LOCATIONS)
        with Nginx(gateway):
            for client, scopes, method, target in REQUESTS:
                token = lab.mint(lab.machine_claims(client, scopes)) if client else None
                exchange(gateway.port, request(target, method=method, token=token))
        serve.stop()
        (folder / "audit").write_bytes(gzip.compress(b"".join(serve.output)))
        yield Recorded(folder / "audit", serve.config)


def test_each_client_has_its_requests_refusals_and_the_scopes_that_it_never_needed(recorded: Recorded) -> None:
    _, report = recorded.report("--config", str(recorded.config))
    prefix = "https://api.lab.informationcart.com/"
    clients = {one["client_id"]: one for one in report["clients"]}

    assert {name: (one["requests"], one["refusals"], one["never_needed"]) for name, one in clients.items()} == {
        "etl": (5, {"insufficient_scope": 1, "ambiguous_path": 1}, [f"{prefix}unused"]),
        "ci": (3, {"no_matching_rule": 1}, []),
        "guest": (1, {"client_not_allowed": 1}, []),
        "": (2, {"missing_token": 1}, []),
    }
    assert clients["etl"]["would_deny"] == {"insufficient_scope": 1}


def test_the_configuration_that_was_in_force_changes_nothing(recorded: Recorded) -> None:
    status, report = recorded.report("--config", str(recorded.config))
    replay = report["replay"]

    assert (status, [replay[kind] for kind in ("would_be_refused", "other_role", "would_be_allowed")]) == (0, [[]] * 3)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--without-scope", "read"], [("etl", "insufficient_scope", 2)]),
        (["--without-scope", "unused"], []),
        (["--revoke", "ci"], [("ci", "revoked", 2)]),
        (["--revoke", "guest"], []),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)
def test_who_loses_access_is_named(recorded: Recorded, options: list[str], refused: list[tuple[str, str, int]]) -> None:
    assert recorded.replay(*options) == (1 if refused else 0, refused)


def test_a_new_configuration_says_who_it_would_refuse_before_it_takes_effect(recorded: Recorded, lab: Issuer) -> None:
    policies = {"api": {"rules": RULES[1:], "clients": ["etl"]}, "watched": {"scope": ["admin"]}}
    new = recorded.config.with_name("new.yaml")
    new.write_text(json.dumps(configuration(entry(lab), policies=policies)))

    assert Recorded(recorded.lines, new).replay() == (
        1,
        [("", "missing_token", 1), ("ci", "client_not_allowed", 2), ("etl", "insufficient_scope", 1)],
    )
