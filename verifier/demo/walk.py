"""The newcomer's first minute: the same steps as curl lines to paste and as a self-test."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from verifier.demo.stack import Stack

ROLE = "arn:aws:iam::123456789012:role/demo-reader"
"""The role that the demo's policy gives to its client."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request, the status it shall get, and what its answer (headers and body) shall and shall not hold."""

    title: str
    status: int
    path: str = "/db/orders"
    method: str = "GET"
    token: bool = True
    forged: str = ""
    holds: str = ""
    lacks: str = ""

    def curl(self, url: str) -> str:
        """The line to paste; `$TOKEN` is the shell's."""
        method = f" -X {self.method}" if self.method != "GET" else ""
        token = ' -H "Authorization: Bearer $TOKEN"' if self.token else ""
        forged = f" -H 'X-M2M-Role: {self.forged}'" if self.forged else ""
        return f"curl -i{method}{token}{forged} {url}{self.path}"

    def explain(self, url: str, config: Path) -> str:
        """The line to paste that tells why it is answered so."""
        command = f"{shlex.quote(sys.executable)} -m verifier explain --config {shlex.quote(str(config))} --policy api"
        return f'printf %s "$TOKEN" | {command} --method {self.method} --url {url}{self.path}'

    def take(self, client: httpx.Client, token: str) -> tuple[bool, str]:
        """Send it; whether the answer is the right one, and what it was in a few words."""
        headers = {"Authorization": f"Bearer {token}"} if self.token else {}
        if self.forged:
            headers["X-M2M-Role"] = self.forged
        answer = client.request(self.method, self.path, headers=headers)
        challenge = answer.headers.get("WWW-Authenticate", "")
        whole = challenge + answer.text
        right = answer.status_code == self.status and self.holds in whole
        if self.lacks and self.lacks in whole:
            right = False
        return right, f"{answer.status_code} {' '.join(answer.text.split()) if answer.is_success else challenge}"


DELETE = Step("Delete, which needs more than its scope: 403", 403, "/db/orders/7", "DELETE")
STEPS = (
    Step("Call with it: 200, and the API sees who calls", 200, holds=ROLE),
    Step("Call without: 401 and its challenge", 401, token=False, holds="Bearer realm="),
    DELETE,
    Step("Forge a role: 200, and the API sees the true one", 200, forged="root", holds=ROLE, lacks='"root"'),
)


def instructions(demo: Stack) -> str:
    """What the newcomer reads; the indented lines in the middle are a bash script."""
    get_token = (
        f"TOKEN=$(curl -s {demo.url}/oauth2/token -u {demo.client_id}:{demo.secret}"
        """ -d grant_type=client_credentials | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"""
    )
    lines = [("Get a token; its only scope is read", get_token)]
    lines += [(step.title, step.curl(demo.url)) for step in STEPS]
    lines.append(("Ask why the DELETE was refused, step by step", DELETE.explain(demo.url, demo.verifier.config)))
    script = "\n\n".join(f"  # {number}. {title}\n  {line}" for number, (title, line) in enumerate(lines, 1))
    return f"""
nginx guards a small API on {demo.url} and asks the verifier about every request.

  policy   {demo.verifier.config}  (edit it: in force within 5 s)
  metrics  http://127.0.0.1:{demo.verifier.metrics_port}/metrics
  stop     Ctrl-C

Paste into another terminal:

{script}

What the verifier decides, one line for each request (its audit log):
"""


def check(demo: Stack, between: Callable[[], None]) -> bool:
    """Take each step and print how it went; whether all went well. `between` is called before each."""
    token, results = "", []

    def get_token(client: httpx.Client, _: str) -> tuple[bool, str]:
        nonlocal token
        form, secret = {"grant_type": "client_credentials"}, (demo.client_id, demo.secret)
        answer = client.post("/oauth2/token", data=form, auth=secret)
        token = answer.json().get("access_token", "")
        return bool(token), f"{answer.status_code} {answer.json().get('error', f'{len(token)} characters')}"

    steps = [("Get a token", get_token), *((step.title, step.take) for step in STEPS)]
    with httpx.Client(base_url=demo.url, trust_env=False, timeout=10) as client:
        for title, take in steps:
            between()
            try:
                right, seen = take(client, token)
            except (httpx.HTTPError, ValueError) as error:
                right, seen = False, repr(error)
            print(f"{'ok' if right else 'FAILED':6}  {title:50}  {seen}", flush=True)
            results.append(right)
    return all(results)
