"""docs/agents.md: its commands, pasted one after the other in an empty folder."""

import os
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from tests.ops.pages import DOCS
from tests.programs import ROOT, run

pytestmark = pytest.mark.timeout(600)  # they start a dozen processes

COMMANDS = "".join(DOCS["agents"].blocks("bash"))
BEFORE, _, AFTER = COMMANDS.partition("m2m-verifier demo --check")  # tests/e2e/test_demo.py runs the demo
assert AFTER.count("\n") == 1
RESOURCE = (
    "    resource: {url: https://api.example.com/, authorization_servers: [https://sso.example.com/realms/lab]}\n"
    "    scope_challenge: 401\n"
)


def paste(commands: str, folder: Path) -> CompletedProcess[str]:
    """Run them in a new, empty folder."""
    program = folder / "bin" / "m2m-verifier"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m verifier "$@"\n')
    program.chmod(0o755)
    (folder / "empty").mkdir()
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    return run("bash", "-euo", "pipefail", "-c", commands, check=False, cwd=folder / "empty", env=environment)


def test_the_pages_commands_protect_an_ingress_and_prove_it(tmp_path: Path) -> None:
    done = paste(COMMANDS, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 1 guard(s): no finding(s)" in done.stdout
    assert done.stdout.count(" -> 200 ok") == 2


@pytest.mark.parametrize(
    ("fact", "mistake", "line"),
    [
        ("methods: [GET, HEAD], scope: [orders.read]", "methods: [GET, HEAD]", "GET /orders/7 [] -> 200 ok"),
        ("/orders/**, methods: [GET, HEAD], scope", "/**, methods: [GET, HEAD], scope", "/admin [orders.read"),
        ("'200 ok'                 DELETE", "'200 ok'                 PURGE", "PURGE /orders/7 [orders.write] -> 403"),
    ],
)
def test_the_pages_commands_fail_at_the_first_line_that_is_not_as_expected(
    fact: str, mistake: str, line: str, tmp_path: Path
) -> None:
    assert BEFORE.count(fact) == 1
    done = paste(BEFORE.replace(fact, mistake), tmp_path)

    assert (done.returncode, line in done.stdout.splitlines()[-1]) == (1, True), done.stdout + done.stderr


def test_the_pages_commands_write_the_facts_into_both_ingresses_of_a_policy_with_a_resource(tmp_path: Path) -> None:
    commands = BEFORE.replace("POLICY=orders HOST=api.example.com", "POLICY=Orders_2 HOST=shop.example.org")
    commands = commands.replace("VERIFIER=auth", "VERIFIER=gate").replace("  orders:\n", "  Orders_2:\n" + RESOURCE)
    done = paste(commands.replace("'403 insufficient_scope'", "'401 insufficient_scope'"), tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    api, metadata = yaml.safe_load_all((tmp_path / "empty" / "ingress.yaml").read_text())
    backend = api["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (api["metadata"]["namespace"], metadata["metadata"]["namespace"]) == ("shop", "gate")
    assert {rule["host"] for one in (api, metadata) for rule in one["spec"]["rules"]} == {"shop.example.org"}
    assert backend == {"name": "orders-api", "port": {"number": 8080}}
    assert ".gate.svc." in api["metadata"]["annotations"]["nginx.ingress.kubernetes.io/auth-url"]
