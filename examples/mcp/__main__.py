"""Runs the example: `make example-mcp`."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from examples.stack import Stack, Step, environment_python, local_environment, main

HERE = Path(__file__).parent
CLIENTS = {"reader": ["tools.read"], "publisher": ["tools.read", "tools.write"]}
DISCOVERY = [
    "POST /mcp 401",
    "GET /.well-known/oauth-protected-resource/mcp 200",
    "GET /.well-known/oauth-authorization-server/us-east-1_Demo 200",
    "POST /oauth2/token 200",
    "POST /mcp 200",
]
Lines = list[dict[str, Any]]
Seen = tuple[bool, str]
"""Whether it went as expected, and what was seen."""


@contextlib.contextmanager
def running(scope_challenge: int = 403, *, audience: bool = True) -> Iterator[Stack]:
    """The stack with the MCP server behind it.

    Without `audience`, the issuer is as AWS Cognito: no token has an audience, and the scopes' prefix names the server.
    """
    stack = Stack(HERE, CLIENTS)
    [issuer], policy = stack.configuration["issuers"], stack.configuration["policies"]["mcp"]
    policy["scope_challenge"] = scope_challenge
    if audience:
        stack.issuer.resources = {f"{stack.url}/mcp", f"{stack.url}/other"}
    else:
        issuer["profile"] = "cognito"
        del issuer["audience"]
        stack.configuration["scope_prefix"] = stack.issuer.prefix = f"{stack.url}/mcp/"
    with stack:
        command = [environment_python("mcp"), "-P", str(HERE / "service.py")]
        stack.start([*command, str(stack.service_port), f"127.0.0.1:{stack.port}"])
        yield stack


def agent(stack: Stack, client_id: str, *options: str, **more: str) -> tuple[Lines, str]:
    """What an agent prints: its lines, and the last line of its standard error if it failed."""
    command = [environment_python("mcp"), "-P", str(HERE / "agent.py"), f"{stack.url}/mcp", *options]
    secret = stack.issuer.clients[client_id].secrets[0]
    environment = local_environment(AGENT_ID=client_id, AGENT_SECRET=secret, **more)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=100)
    error = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
    return [json.loads(line) for line in done.stdout.splitlines()], error


def all_of(lines: Lines, name: str) -> list[Any]:
    """The values of one name, in the order of the lines."""
    return [line[name] for line in lines if name in line]


def finds_everything(stack: Stack) -> Seen:
    """Discovery: RFC 9728, RFC 8414."""
    lines, error = agent(stack, "reader")
    seen = all_of(lines, "request")[: len(DISCOVERY)]
    right = seen == DISCOVERY and all_of(lines, "tools") == [["list_reports", "wait_for_report"]] and not error
    return right, f"{seen} {error}"


def steps_up(stack: Stack) -> Seen:
    """The token that the agent has got is not enough for its next tool."""
    lines, error = agent(stack, "publisher", "--publish", "weekly", AGENT_ISSUER=stack.issuer.url)
    status, prefix = stack.configuration["policies"]["mcp"]["scope_challenge"], stack.issuer.prefix
    scopes = all_of(lines, "scope")
    right = scopes == [f"{prefix}tools.read", f"{prefix}tools.read {prefix}tools.write"]
    right &= all_of(lines, "request").count(f"POST /mcp/admin {status}") == 1
    right &= all_of(lines, "report") == [{"result": "all is well (publisher)"}] and not error
    return right, f"{scopes} {error}"


def is_refused_a_scope(stack: Stack) -> Seen:
    """The issuer does not grant the scope."""
    lines, _ = agent(stack, "reader", "--publish", "monthly", AGENT_ISSUER=stack.issuer.url)
    last = all_of(lines, "request")[-1]
    right = last == "POST /oauth2/token 400" and not all_of(lines, "report")
    return right, last


def is_bound_to_one_server(stack: Stack) -> Seen:
    """By audience (RFC 8707), or by the prefix of the scopes."""
    secret = stack.issuer.clients["reader"].secrets[0]
    if stack.issuer.resources:
        reason, token = "wrong_audience", stack.issuer.grant("reader", secret, resource=f"{stack.url}/other")
    else:
        claims = stack.issuer.machine_claims("reader", ["tools.read"])
        claims["scope"] = claims["scope"].replace("/mcp/", "/other/")
        reason, token = "insufficient_scope", stack.issuer.mint(claims)
    with httpx.Client(base_url=stack.url, trust_env=False) as client:
        answer = client.post("/mcp", headers={"Authorization": f"Bearer {token}"})
    seen = f"{answer.status_code} {answer.headers.get('WWW-Authenticate')}"
    return answer.headers.get("X-M2M-Reason") == reason and 'scope="' in seen, seen


def speaks_the_older_protocol(stack: Stack) -> Seen:
    """Streamable HTTP with sessions, as LibreChat and many others speak it."""
    lines, error = agent(stack, "publisher", "--publish", "daily", "--legacy", AGENT_ISSUER=stack.issuer.url)
    seen = sorted({line["request"] for line in lines if line.get("session")})
    right = {"POST /mcp 200", "GET /mcp 200", "DELETE /mcp 200"} <= set(seen) and not error
    right &= all_of(lines, "report") == [{"result": "all is well (publisher)"}]
    return right, f"{seen} {error}"


STEPS = {
    "An agent that knows the URL, its id and its secret, and nothing else, calls a tool": finds_everything,
    "Its next tool needs another scope: it is refused, asks for both, and succeeds": steps_up,
    "An agent that may not have this scope gets no token with it": is_refused_a_scope,
    "A token for another server of the same issuer is refused": is_bound_to_one_server,
    "The same with the protocol 2025-11-25: session, stream from the server, DELETE": speaks_the_older_protocol,
}


def steps(stack: Stack) -> Iterator[Step]:
    """Each step."""
    for title, step in STEPS.items():
        yield title, *step(stack)


if __name__ == "__main__":
    sys.exit(main(running, steps))
