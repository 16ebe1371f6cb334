"""The examples in docs/examples/ run as the pages describe them."""

import base64
import json
import os
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.stage import eventually
from tests.ops.aws import POOL, Aws
from tests.programs import BIN, ROOT, run
from verifier.demo.oauth import OAuthError
from verifier.demo.serving import Background, free_port
from verifier.demo.stack import Stack

EXAMPLES = ROOT / "docs" / "examples"
COMMANDS = {
    "shell": ["bash", str(EXAMPLES / "call-api.sh")],
    "python": [sys.executable, str(EXAMPLES / "call_api.py")],
}
only_shell = pytest.mark.parametrize("agent", ["shell"], indirect=True)
METHOD = {"shell": ["--request", "DELETE"], "python": ["DELETE"]}
SECRET = "m2m/nightly-report"
AWS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1"}


ClientToken = runpy.run_path(str(EXAMPLES / "call_api.py"))["ClientToken"]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(0) as running:
        yield running


@pytest.fixture
def aws(stack: Stack) -> Iterator[Aws]:
    made = Aws(stack.issuer)
    made.keep(SECRET, stack.client_id, stack.secret)
    with Background(made.app) as server:
        made.url = server.url
        yield made


@dataclass
class Agent:
    """A machine that runs an example. `recorded` is every argument of every program that it started."""

    home: Path
    credentials: Mapping[str, str]
    kind: str

    def __post_init__(self) -> None:
        programs = self.home / "bin"
        programs.mkdir()
        for program in ("aws", "bash", "cat", "curl", "date", "jq", "mkdir", "mktemp", "mv", "rm", "sed"):
            found = shutil.which(program, path=f"{BIN}:{os.environ['PATH']}")
            record = f'#!/bin/sh\nprintf "%s\\n" {program} "$@" >>{self.home}/argv\nexec {found} "$@"\n'
            (programs / program).write_text(record)
            (programs / program).chmod(0o755)

    def call(self, url: str, *arguments: str) -> CompletedProcess[str]:
        environment = {"PATH": f"{self.home}/bin:/usr/bin:/bin", "HOME": str(self.home), **self.credentials}
        return run(*COMMANDS[self.kind], url, *arguments, env=environment, check=False)

    @property
    def recorded(self) -> str:
        return (self.home / "argv").read_text()

    @property
    def kept(self) -> Path:
        (file,) = (self.home / ".cache" / "call-api").iterdir()
        return file

    @property
    def token(self) -> str:
        return self.kept.read_text().partition("Bearer ")[2].strip('"\n')

    def keep(self, token: str, renew_at: float) -> None:
        self.kept.write_text(f'# {int(renew_at)}\nheader = "Authorization: Bearer {token}"\n')


@pytest.fixture(params=COMMANDS)
def agent(request: pytest.FixtureRequest, tmp_path: Path, stack: Stack) -> Agent:
    credentials = {
        "API_CLIENT_ID": stack.client_id, "API_CLIENT_SECRET": stack.secret,
        "API_TOKEN_URL": f"{stack.url}/oauth2/token", "API_SCOPE": f"{stack.issuer.prefix}read",
    }  # fmt: skip
    return Agent(tmp_path, credentials, request.param)


class Refusing:
    """An API that answers with these statuses in turn, the last one for ever, and keeps the tokens and bodies."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.tokens: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.tokens += [value.decode() for name, value in scope["headers"] if name == b"authorization"]
        self.bodies.append((await receive()).get("body", b""))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


# --- an agent, in either language


def test_an_example_prints_the_apis_answer(agent: Agent, stack: Stack) -> None:
    result = agent.call(f"{stack.url}/db/orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["headers"]["X-M2M-Client-ID"] == stack.client_id


def test_an_example_takes_its_credentials_from_secrets_manager(agent: Agent, stack: Stack, aws: Aws) -> None:
    agent.credentials = {"API_SECRET_ID": SECRET, "AWS_ENDPOINT_URL": aws.url, **AWS}
    result = agent.call(f"{stack.url}/db/orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert aws.requests == ["GetSecretValue"]


@pytest.mark.parametrize(("status", "tokens"), [(401, 2), (403, 1)])
def test_an_example_tries_a_second_token_after_a_401_and_none_after_a_403(
    agent: Agent, status: int, tokens: int
) -> None:
    api = Refusing(status)
    with Background(api) as server:
        result = agent.call(server.url)
    assert (result.returncode, result.stderr.endswith(f"HTTP {status}\n")) == (1, True)
    assert len(api.tokens) == len(set(api.tokens)) == tokens


def test_a_missing_scope_is_a_403_through_nginx(agent: Agent, stack: Stack) -> None:
    result = agent.call(f"{stack.url}/db/orders/7", *METHOD[agent.kind])
    assert (result.returncode, result.stderr.endswith("HTTP 403\n")) == (1, True)


def test_a_wrong_secret_is_reported_and_not_shown(agent: Agent, stack: Stack) -> None:
    agent.credentials = {**agent.credentials, "API_CLIENT_SECRET": "not-the-secret"}
    result = agent.call(f"{stack.url}/db/orders")
    assert (result.returncode, "invalid_client" in result.stderr) == (1, True)
    assert "not-the-secret" not in result.stderr + result.stdout


# --- the shell example alone


@only_shell
def test_the_shell_example_keeps_its_token_until_a_minute_before_it_expires(agent: Agent, stack: Stack) -> None:
    agent.call(stack.url)
    first = agent.token
    renew_at = int(agent.kept.read_text().splitlines()[0].removeprefix("# "))
    expires = json.loads(base64.urlsafe_b64decode(first.split(".")[1] + "=="))["exp"]
    assert 58 <= expires - renew_at <= 61
    assert (agent.call(stack.url).returncode, agent.token) == (0, first)
    agent.keep(first, renew_at=time.time())
    assert (agent.call(stack.url).returncode, agent.token == first) == (0, False)


@only_shell
def test_the_shell_example_renews_a_refused_token_and_repeats_the_request(agent: Agent, stack: Stack) -> None:
    agent.call(stack.url)
    claims = stack.issuer.machine_claims(stack.client_id, ["read"], lifetime=-60)
    agent.keep(stack.issuer.mint(claims), renew_at=time.time() + 1000)
    result = agent.call(f"{stack.url}/db/orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["path"] == "/db/orders"


@only_shell
def test_no_argument_holds_a_secret_and_only_the_owner_may_read_the_kept_token(agent: Agent, stack: Stack) -> None:
    agent.call(stack.url)
    assert "curl" in agent.recorded.splitlines()  # or nothing was recorded
    assert stack.secret not in agent.recorded
    assert agent.token not in agent.recorded
    assert (agent.kept.stat().st_mode & 0o777, agent.kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


# --- the Python example alone


@dataclass
class Reading:
    """Reads the credentials of the demo's client and counts the reads; its clock stands at `now`."""

    stack: Stack
    reads: int = 0
    now: float = 0

    def __call__(self) -> dict[str, str]:
        self.reads += 1
        url = f"{self.stack.url}/oauth2/token"
        return {"client_id": self.stack.client_id, "client_secret": self.stack.secret, "token_url": url}

    def client(self, url: str = "") -> httpx.Client:
        auth = ClientToken(self, clock=lambda: self.now)
        return httpx.Client(base_url=url or self.stack.url, auth=auth, trust_env=False)


def test_the_python_example_fetches_one_token_for_all_threads(stack: Stack) -> None:
    reading = Reading(stack)
    with reading.client() as api, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(api.get, ["/db/orders"] * 8))
    assert ([answer.status_code for answer in answers], reading.reads) == ([200] * 8, 1)


@pytest.mark.parametrize(("seconds", "reads"), [(3539, 1), (3540, 2)])
def test_the_python_example_renews_a_minute_before_a_token_expires(stack: Stack, seconds: float, reads: int) -> None:
    reading = Reading(stack)
    with reading.client() as api:
        api.get("/db/orders")
        reading.now = seconds
        api.get("/db/orders")
    assert reading.reads == reads


def test_the_python_example_repeats_a_refused_post_with_its_body(stack: Stack) -> None:
    refusing = Refusing(401, 200)
    with Background(refusing) as server, Reading(stack).client(server.url) as api:
        assert api.post("/db", json={"a": 1}).status_code == 200
    assert refusing.bodies == [b'{"a":1}'] * 2


# --- rotation


@dataclass
class Caller:
    """An agent that calls all the time and renews its token about ten times a second."""

    stack: Stack
    aws: Aws
    statuses: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    used: list[dict[str, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _credentials(self) -> dict[str, str]:
        self.used.append(self.aws.stored(SECRET))
        return self.used[-1]

    def _run(self) -> None:
        auth = ClientToken(self._credentials, clock=lambda: time.monotonic() * 40_000)
        with httpx.Client(base_url=self.stack.url, auth=auth, trust_env=False, timeout=10) as api:
            while not self._stop.wait(0.002):
                try:
                    self.statuses.append(api.get("/db/orders").status_code)
                except (RuntimeError, httpx.HTTPError) as error:
                    self.failed.append(repr(error))

    def __enter__(self) -> "Caller":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def goes_on(self) -> None:
        """Wait for two renewals and the calls between them."""
        before = len(self.used)
        eventually(lambda: len(self.used) >= before + 3 or self.failed, "it renewed its token twice")

    @property
    def refused(self) -> list[int | str]:
        return [*self.failed, *(status for status in self.statuses if status != 200)]


@pytest.fixture
def caller(stack: Stack, aws: Aws) -> Iterator[Caller]:
    """It calls during the whole test. Afterwards its client's secret and the configuration are restored."""
    configuration = stack.verifier.config.read_text()
    with Caller(stack, aws) as calling:
        yield calling
    stack.issuer.clients[stack.client_id].secrets[:] = [stack.secret]
    if stack.verifier.config.read_text() != configuration:
        configure(stack, configuration)
        eventually(lambda: status_of(stack) == 200, "the configuration is restored")


def configure(stack: Stack, configuration: str) -> None:
    new = stack.verifier.config.with_suffix(".new")
    new.write_text(configuration)
    new.rename(stack.verifier.config)


def allow(stack: Stack, *clients: str) -> None:
    configuration = yaml.safe_load(stack.verifier.config.read_text())
    configuration["issuers"][0]["clients"] = list(clients)
    configure(stack, yaml.safe_dump(configuration))


def status_of(stack: Stack, client_id: str = "", url: str = "") -> int:
    """What nginx, or another URL, answers to a token of the client, by default the demo's."""
    token = stack.issuer.mint(stack.issuer.machine_claims(client_id or stack.client_id, ["read"]))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(url or f"{stack.url}/db/orders", headers=headers, trust_env=False).status_code


Rotate = Callable[..., CompletedProcess[str]]


@pytest.fixture
def rotate(aws: Aws) -> Rotate:
    """Runs rotate_secret.py for SECRET."""
    environment = os.environ | AWS | {"AWS_ENDPOINT_URL": aws.url, "COGNITO_USER_POOL_ID": POOL}

    def command(step: str, *options: str, check: bool = True) -> CompletedProcess[str]:
        return run(sys.executable, EXAMPLES / "rotate_secret.py", step, SECRET, *options, env=environment, check=check)

    return command


def secrets_of_a_new_client(aws: Aws, url: str = "") -> list[str]:
    """Store a new client's credentials; the secrets that the issuer accepts for it."""
    client_id, secret = aws.issuer.add_client("read")
    aws.keep(SECRET, client_id, secret, url)
    return aws.issuer.clients[client_id].secrets


def test_a_rotation_refuses_no_request(stack: Stack, aws: Aws, caller: Caller, rotate: Rotate) -> None:
    rotate("begin")
    caller.goes_on()
    rotate("finish", "--overlap=0")
    caller.goes_on()

    new = aws.stored(SECRET)["client_secret"]
    assert caller.refused == []
    assert {known["client_secret"] for known in caller.used} == {stack.secret, new}
    with pytest.raises(OAuthError, match="invalid_client"):
        stack.issuer.grant(stack.client_id, stack.secret)


def test_a_caller_notices_a_secret_that_is_replaced_without_overlap(stack: Stack, caller: Caller) -> None:
    stack.issuer.clients[stack.client_id].secrets[:] = ["another"]
    eventually(lambda: caller.failed, "the caller fails")
    assert "invalid_client" in caller.failed[0]


def test_a_move_to_a_second_client_refuses_no_request(stack: Stack, aws: Aws, caller: Caller) -> None:
    client_id, secret = stack.issuer.add_client("read")
    allow(stack, stack.client_id, client_id)
    eventually(lambda: status_of(stack, client_id) == 200, "the new client is allowed")
    aws.keep(SECRET, client_id, secret)
    caller.goes_on()
    allow(stack, client_id)
    eventually(lambda: status_of(stack) == 403, "the old client is refused")
    caller.goes_on()
    assert caller.refused == []
    assert caller.used[-1]["client_id"] == client_id


def test_finish_waits_while_callers_may_use_the_old_secret_and_no_secret_is_printed(aws: Aws, rotate: Rotate) -> None:
    secrets = secrets_of_a_new_client(aws)
    begun, finished = rotate("begin"), rotate("finish", check=False)
    assert (finished.returncode, "run finish in 7" in finished.stderr, len(secrets)) == (1, True, 2)
    assert not any(secret in done.stdout + done.stderr for secret in secrets for done in (begun, finished))


def test_the_command_says_that_the_last_rotation_is_not_finished(aws: Aws, rotate: Rotate) -> None:
    secrets_of_a_new_client(aws).append("second")
    done = rotate("begin", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "finish the last rotation first" in done.stderr


def test_a_new_secret_that_gets_no_token_is_deleted_again(aws: Aws, rotate: Rotate) -> None:
    secrets = secrets_of_a_new_client(aws, url=f"http://127.0.0.1:{free_port()}")
    before = list(secrets)
    assert rotate("begin", check=False).returncode == 1
    assert secrets == before == [aws.stored(SECRET)["client_secret"]]


# --- moving


def test_a_policy_without_rules_needs_no_original_url(stack: Stack) -> None:
    verify = f"http://{stack.verifier.address}/verify"
    assert [status_of(stack, url=f"{verify}/{policy}") for policy in ("default", "api")] == [200, 403]
