"""The steps of the demo, as curl lines to paste and as a self-test."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from verifier.demo.stack import ROLE, Stack

Watch = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One request, its expected status, and what its answer (headers and body) must and must not contain."""

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

    def take(self, client: httpx.Client, token: str) -> tuple[bool, str]:
        """Send it. Whether the answer is the expected one, and a summary of it."""
        headers = {"Authorization": f"Bearer {token}"} if self.token else {}
        if self.forged:
            headers["X-M2M-Role"] = self.forged
        answer = client.request(self.method, self.path, headers=headers)
        challenge = answer.headers.get("WWW-Authenticate", "")
        whole = challenge + answer.text
        right = answer.status_code == self.status and self.holds in whole and not (self.lacks and self.lacks in whole)
        return right, f"{answer.status_code} {' '.join(answer.text.split()) if answer.is_success else challenge}"


DELETE = Step("Delete, which needs the scope write: 403", 403, "/db/orders/7", "DELETE")
STEPS = (
    Step("Call the API with the token: 200, and the API knows the caller", 200, holds=ROLE),
    Step("Call it without a token: 401 and a challenge", 401, token=False, holds="Bearer realm="),
    DELETE,
    Step("Forge a role: 200, and the API gets the real one", 200, forged="root", holds=ROLE, lacks='"root"'),
)


HEADING = "Below: one JSON line for each decision (the audit log), and the verifier's own log."


def instructions(demo: Stack) -> str:
    """What the demo prints; the indented lines after "Paste" are a bash script."""
    get_token = (
        f"TOKEN=$(curl -s {demo.url}/oauth2/token -u {demo.client_id}:{demo.secret}"
        """ -d grant_type=client_credentials | sed 's/.*"access_token":"\\([^"]*\\).*/\\1/')"""
    )
    lines = [("Get a token; its only scope is read", get_token)]
    lines += [(step.title, step.curl(demo.url)) for step in STEPS]
    command = [sys.executable, "-P", "-m", "verifier", "explain", "--config", str(demo.verifier.config)]
    command += ["--policy", "api", "--method", DELETE.method, "--url", demo.url + DELETE.path]
    lines.append(("Print each step of the decision about the DELETE", f'printf %s "$TOKEN" | {shlex.join(command)}'))
    script = "\n\n".join(f"  # {number}. {title}\n  {line}" for number, (title, line) in enumerate(lines, 1))
    return f"""
nginx listens on {demo.url}, protects a small API and asks the verifier about every request.

  configuration   {demo.verifier.config}  (edit it: a change is in force within 5 s)
  nginx.conf      {demo.nginx.config}
  verifier's log  {demo.verifier.log_file}
  nginx's log     {demo.nginx.log_file}
  metrics         http://127.0.0.1:{demo.verifier.metrics_port}/metrics

Ctrl-C stops the demo and removes these files. Paste into another terminal:

{script}

{HEADING}
"""


def check(demo: Stack, watch: Watch) -> bool:
    """Take each step and print its result; whether all were as expected. `watch` is called before each."""
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
            watch()
            try:
                right, seen = take(client, token)
            except (httpx.HTTPError, ValueError) as error:
                right, seen = False, repr(error)
            print(f"{'ok' if right else 'FAILED':6}  {title:62}  {seen}", flush=True)
            results.append(right)
    return all(results)
