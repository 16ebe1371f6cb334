"""The audit lines of a real `serve`, reported and replayed by the command. tests/unit/tools/test_report.py has more."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stage import PATIENCE, Serve, configuration, entry
from verifier.demo.issuer import Issuer

RULES = [
    {"path": "/db/**", "methods": ["OPTIONS"], "token": "none"},
    {"path": "/db/**", "methods": ["GET"], "scope": ["read"]},
    {"path": "/db/**", "methods": ["POST"], "any_scope": ["write", "admin"]},
    {"path": "/**", "methods": ["GET"]},
]
WATCHED = {"scope": ["admin"], "mode": "report"}
# client, scopes, method, path, and auth URL
REQUESTS = [
    ("etl", ["read", "unused"], "GET", "/db/a", "/verify/api"),
    ("etl", ["read", "unused"], "GET", "/db/a?secret=1", "/verify/api"),
    ("etl", ["read"], "POST", "/db/a", "/verify/api"),
    ("etl", ["read"], "GET", "/db/%2f", "/verify/api"),
    ("etl", ["read"], "GET", "/watched", "/verify/watched"),
    ("ci", ["write"], "POST", "/db/b", "/verify/api"),
    ("ci", ["write"], "DELETE", "/db/b", "/verify/api"),
    ("ci", ["write"], "GET", "/narrow/x", "/verify/api?scope=write"),
    ("guest", ["read"], "GET", "/db/a", "/verify/api"),
    (None, [], "GET", "/db/a", "/verify/api"),
    (None, [], "OPTIONS", "/db/a", "/verify/api"),
]


def content(issuer: Issuer, **policies: Any) -> str:
    return json.dumps(configuration(entry(issuer), audit="all", policies=policies))


@pytest.fixture(scope="module")
def recorded(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a gzip file of audit lines, and the configuration that was in force."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "config").write_text(content(lab, api={"rules": RULES, "clients": ["etl", "ci"]}, watched=WATCHED))
    with Serve(folder / "config", folder) as serve:
        for client, scopes, method, path, auth in REQUESTS:
            token = lab.mint(lab.machine_claims(client, scopes)) if client else None
            serve.ask(token, auth, method=method, url=f"http://api.example{path}")
        serve.stop()
        (folder / "audit").write_bytes(gzip.compress(b"".join(serve.output)))
    return folder


def report(folder: Path, *options: str, config: str = "config") -> tuple[int, Any]:
    """Exit status of the command, and the report."""
    command = [sys.executable, "-P", "-m", "verifier", "report", str(folder / "audit")]
    command += ["--config", str(folder / config), "--format", "json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_each_client_has_its_requests_refusals_and_the_scopes_that_it_never_needed(recorded: Path) -> None:
    clients = {one["client_id"]: one for one in report(recorded)[1]["clients"]}

    assert {name: (one["requests"], one["refusals"], one["never_needed"]) for name, one in clients.items()} == {
        "etl": (5, {"insufficient_scope": 1, "ambiguous_path": 1}, ["https://api.lab.informationcart.com/unused"]),
        "ci": (3, {"no_matching_rule": 1}, []),
        "guest": (1, {"client_not_allowed": 1}, []),
        "": (2, {"missing_token": 1}, []),
    }
    assert clients["etl"]["would_deny"] == {"insufficient_scope": 1}


def test_the_configuration_that_was_in_force_changes_nothing(recorded: Path) -> None:
    status, found = report(recorded)
    kinds = "would_be_refused", "other_role", "would_be_allowed"

    assert (status, [found["replay"][kind] for kind in kinds]) == (0, [[], [], []])


def test_options_and_a_new_configuration_say_who_would_be_refused(recorded: Path, lab: Issuer) -> None:
    new = content(lab, api={"rules": RULES[1:]}, watched={"scope": ["admin"]})
    (recorded / "new").write_text(new)
    status, found = report(recorded, "--without-scope", "read", "--revoke", "ci", config="new")
    refused = found["replay"]["would_be_refused"]

    assert status == 1
    assert {(one["client_id"], one["policy"], one["cause"], one["requests"]) for one in refused} == {
        ("", "api", "missing_token", 1),
        ("ci", "api", "revoked", 2),
        ("etl", "api", "insufficient_scope", 2),
        ("etl", "watched", "insufficient_scope", 1),
    }
