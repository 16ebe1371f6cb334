"""Runs the example: `make example-cloudwatch-mcp`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from examples.stack import Stack, Step, environment_python, local_environment, main
from verifier.demo.processes import Child
from verifier.demo.serving import free_port

HERE = Path(__file__).parent
SCOPE = ["cloudwatch.read"]
CLIENTS = {"shop-monitor": SCOPE, "data-monitor": SCOPE, "newcomer": SCOPE, "no-reader": ["other"]}
SHOP, DATA = "111111111111", "222222222222"
PROTOCOL = "2026-07-28"
# No key: a Pod's identity is a file with a token, which the SDK exchanges for credentials that expire.
IDENTITY = {"AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/cloudwatch-mcp", "AWS_ROLE_SESSION_NAME": "server"}


@contextlib.contextmanager
def aws(directory: Path) -> Iterator[dict[str, str]]:
    """moto in place of AWS, with alarms in two accounts; the environment that leads to it."""
    python, port = environment_python("cloudwatch-mcp"), free_port()
    # Not the machine's own configuration of AWS: only what is named here.
    environment = {name: value for name, value in local_environment().items() if not name.startswith("AWS_")}
    environment |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "12"}  # moto takes a moment to listen
    command = [python, "-P", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    moto = Child(command, directory / "moto.log", environment=environment)
    try:
        subprocess.run([python, str(HERE / "seed.py")], check=True, env=environment)
        yield environment
    finally:
        moto.stop(signal.SIGTERM, 10)


@contextlib.contextmanager
def running(mode: str) -> Iterator[Stack]:
    """The stack with the MCP server behind it, in one of MODES."""
    stack = Stack(HERE, CLIENTS)
    stack.issuer.resources = {f"{stack.url}/mcp"}
    with stack, aws(stack.directory) as environment:
        if mode == "assume-role":
            token = stack.directory / "pod-token"
            token.write_text("the token that Kubernetes gives to the Pod")
            environment |= {**IDENTITY, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}
        command = [environment_python("cloudwatch-mcp"), str(HERE / "service.py"), str(stack.service_port)]
        stack.start([*command, f"127.0.0.1:{stack.port}", mode], environment)
        yield stack


@dataclass(frozen=True)
class Case:
    """One call of a tool, and what it must give. `reason` is there where the verifier refuses it."""

    title: str
    client: str
    tool: str
    expected: Any = None
    arguments: dict[str, Any] = field(default_factory=dict)
    forged: dict[str, str] = field(default_factory=dict)
    status: int = 200
    reason: str | None = None

    def take(self, stack: Stack) -> Step:
        """Send it: title, whether the answer is the expected one, and a summary of it."""
        secret = stack.issuer.clients[self.client].secrets[0]
        token = stack.issuer.grant(self.client, secret, resource=f"{stack.url}/mcp")
        meta = {"protocolVersion": PROTOCOL, "clientCapabilities": {}}
        params = {
            "name": self.tool,
            "arguments": self.arguments,
            "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()},
        }
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": PROTOCOL,
            "Mcp-Method": "tools/call",
            "Mcp-Name": self.tool,
            **self.forged,
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        with httpx.Client(base_url=stack.url, trust_env=False, timeout=60) as client:
            answer = client.post("/mcp", json=body, headers=headers)
        reason = answer.headers.get("X-M2M-Reason")
        if answer.status_code != 200:
            seen = f"{answer.status_code} {reason}"
            return self.title, (answer.status_code, reason) == (self.status, self.reason), seen
        result = answer.json().get("result", {})
        found = result.get("structuredContent")
        if found is None:  # the tool failed
            return self.title, False, json.dumps(result)
        found = found.get("result", found)
        return self.title, self.status == 200 and shown(self.tool, found) == self.expected, json.dumps(found)


def shown(tool: str, seen: Any) -> Any:
    """The part of an answer that does not depend on the time."""
    if tool == "active_alarms":
        return [alarm["name"] for alarm in seen]
    return [value for _, value in seen] if tool == "query_metric" else seen


def session(account: str, client: str) -> dict[str, str]:
    """What CloudTrail would show."""
    return {"account": account, "arn": f"arn:aws:sts::{account}:assumed-role/monitoring/{client}"}


ERRORS = {"namespace": "Shop", "metric": "Errors", "statistic": "Sum"}
FORGED = {"X-M2M-Role": f"arn:aws:iam::{DATA}:role/monitoring", "X-M2M-Client-ID": "data-monitor"}
OWN = "A role and an id that a client sends itself have no effect"
SHOPS, DATAS = [f"alarm-of-{SHOP}"], [f"alarm-of-{DATA}"]
CASES = (
    Case("A client sees the alarms of its role's account", "shop-monitor", "active_alarms", SHOPS),
    Case("Another client, with another role, sees another account's", "data-monitor", "active_alarms", DATAS),
    Case("Again each its own, from the credentials that were kept", "shop-monitor", "active_alarms", SHOPS),
    Case("A metric of the one account", "shop-monitor", "query_metric", [1.0], ERRORS),
    Case("The same metric of the other", "data-monitor", "query_metric", [2.0], ERRORS),
    Case("AWS knows which client asks", "data-monitor", "whoami", session(DATA, "data-monitor")),
    Case(OWN, "shop-monitor", "whoami", session(SHOP, "shop-monitor"), forged=FORGED),
    Case("A client without a role is refused", "newcomer", "whoami", status=403, reason="no_role"),
    Case("A client without the scope is refused", "no-reader", "whoami", status=401, reason="insufficient_scope"),
)

MODES = ("assume-role", "web-identity")
TITLES = [f"{mode}: {case.title}" for mode in MODES for case in CASES]


def steps(mode: str, stack: Stack) -> Iterator[Step]:
    """Each case, with the mode before its title."""
    for case in CASES:
        title, right, seen = case.take(stack)
        yield f"{mode}: {title}", right, seen


if __name__ == "__main__":
    sys.exit(any(main(partial(running, mode), partial(steps, mode)) for mode in MODES))
