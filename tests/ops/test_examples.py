"""What the pages give to copy runs: the examples, the rotation, the nginx block."""

import base64
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aws import POOL, Aws
from pages import DOCS, ROOT

from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Nginx
from verifier.demo.oauth import OAuthError
from verifier.demo.processes import Child
from verifier.demo.serving import Background, bind, free_port, port_of
from verifier.demo.stack import Stack

EXAMPLES = ROOT / "docs" / "examples"
COMMANDS = {
    "shell": ["bash", str(EXAMPLES / "call-api.sh")],
    "python": [sys.executable, str(EXAMPLES / "call_api.py")],
}
METHOD = {"shell": ["--request", "DELETE"], "python": ["DELETE"]}
SECRET = "m2m/nightly-report"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CALL_API = load("call_api")


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


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@dataclass
class Agent:
    """A machine that runs an example. `recorded` is what each program it started was given."""

    home: Path
    credentials: Mapping[str, str]
    kind: str

    def __post_init__(self) -> None:
        self._bin = self.home / "bin"
        self._bin.mkdir()
        for program in ("aws", "bash", "cat", "curl", "date", "jq", "mkdir", "mktemp", "mv", "rm", "sed"):
            found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            (self._bin / program).write_text(
                f'#!/bin/sh\nprintf "%s\\n" {program} "$@" >>{self.home}/argv\nexec {found} "$@"\n'
            )
            (self._bin / program).chmod(0o755)

    def call(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self.home), **self.credentials}
        return subprocess.run(
            [*COMMANDS[self.kind], url, *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

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


@pytest.fixture
def credentials(stack: Stack) -> dict[str, str]:
    return {
        "API_CLIENT_ID": stack.client_id,
        "API_CLIENT_SECRET": stack.secret,
        "API_TOKEN_URL": f"{stack.url}/oauth2/token",
        "API_SCOPE": f"{stack.issuer.prefix}read",
    }


@pytest.fixture(params=COMMANDS)
def agent(request: pytest.FixtureRequest, tmp_path: Path, credentials: dict[str, str]) -> Agent:
    return Agent(tmp_path, credentials, request.param)


@pytest.fixture
def shell(tmp_path: Path, credentials: dict[str, str]) -> Agent:
    return Agent(tmp_path, credentials, "shell")


class Refusing:
    """An API that answers every request with one status, and keeps the tokens that it was sent."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.tokens: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.tokens += [value.decode() for name, value in scope["headers"] if name == b"authorization"]
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


# --- an agent, in either language


def test_an_example_prints_the_apis_answer(agent: Agent, stack: Stack) -> None:
    result = agent.call(f"{stack.url}/db/orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["headers"]["X-M2M-Client-ID"] == stack.client_id


def test_an_example_takes_its_credentials_from_secrets_manager(agent: Agent, stack: Stack, aws: Aws) -> None:
    fake = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1"}
    agent.credentials = {"API_SECRET_ID": SECRET, "AWS_ENDPOINT_URL": aws.url, **fake}
    result = agent.call(f"{stack.url}/db/orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert aws.asked == ["GetSecretValue"]


def test_after_a_second_401_an_example_gives_up(agent: Agent) -> None:
    api = Refusing(401)
    with Background(api) as server:
        result = agent.call(server.url)
    assert (result.returncode, result.stderr.endswith("HTTP 401\n")) == (1, True)
    first, second = api.tokens  # and no third
    assert first != second


def test_after_a_403_an_example_gives_up_at_once(agent: Agent) -> None:
    api = Refusing(403)
    with Background(api) as server:
        result = agent.call(server.url)
    assert (result.returncode, result.stderr.endswith("HTTP 403\n")) == (1, True)
    assert len(api.tokens) == 1


def test_a_scope_too_few_is_a_403_through_nginx(agent: Agent, stack: Stack) -> None:
    result = agent.call(f"{stack.url}/db/orders/7", *METHOD[agent.kind])
    assert (result.returncode, result.stderr.endswith("HTTP 403\n")) == (1, True)


def test_a_wrong_secret_is_told_and_not_shown(agent: Agent, stack: Stack) -> None:
    agent.credentials = {**agent.credentials, "API_CLIENT_SECRET": "not-the-secret"}
    result = agent.call(f"{stack.url}/db/orders")
    assert result.returncode == 1
    assert "invalid_client" in result.stderr
    assert "not-the-secret" not in result.stderr + result.stdout


# --- the shell example alone


def test_the_shell_example_keeps_its_token(shell: Agent, stack: Stack) -> None:
    shell.call(stack.url)
    first = shell.token
    assert shell.call(stack.url).returncode == 0
    assert shell.token == first


def test_the_shell_example_renews_a_token_that_is_about_to_expire(shell: Agent, stack: Stack) -> None:
    shell.call(stack.url)
    first = shell.token
    shell.keep(first, renew_at=time.time())
    assert shell.call(stack.url).returncode == 0
    assert shell.token != first


def test_the_shell_example_renews_a_minute_before_a_token_expires(shell: Agent, stack: Stack) -> None:
    shell.call(stack.url)
    renew_at = int(shell.kept.read_text().splitlines()[0].removeprefix("# "))
    payload = shell.token.split(".")[1]
    expires = json.loads(base64.urlsafe_b64decode(payload + "=="))["exp"]
    assert 58 <= expires - renew_at <= 61


def test_the_shell_example_renews_a_refused_token_and_repeats_the_request(shell: Agent, stack: Stack) -> None:
    shell.call(stack.url)
    claims = stack.issuer.machine_claims(stack.client_id, ["read"], lifetime=-60)
    shell.keep(stack.issuer.mint(claims), renew_at=time.time() + 1000)
    result = shell.call(f"{stack.url}/db/orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["path"] == "/db/orders"


def test_the_shell_example_gives_no_program_a_secret_or_token_as_an_argument(shell: Agent, stack: Stack) -> None:
    shell.call(stack.url)
    assert "curl" in shell.recorded.splitlines()  # or nothing was recorded
    assert stack.secret not in shell.recorded
    assert shell.token not in shell.recorded


def test_only_its_owner_may_read_what_the_shell_example_keeps(shell: Agent, stack: Stack) -> None:
    shell.call(stack.url)
    assert (shell.kept.stat().st_mode & 0o777, shell.kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


# --- the Python example alone


@dataclass
class Reading:
    """Credentials that change, and a clock that is told the time."""

    stack: Stack
    secret: str
    reads: int = 0
    now: float = 0

    def __call__(self) -> dict[str, str]:
        self.reads += 1
        url = f"{self.stack.url}/oauth2/token"
        return {"client_id": self.stack.client_id, "client_secret": self.secret, "token_url": url}

    def client(self) -> httpx.Client:
        auth = CALL_API.ClientToken(self, clock=lambda: self.now)
        return httpx.Client(base_url=self.stack.url, auth=auth, trust_env=False)


@pytest.fixture
def reading(stack: Stack) -> Reading:
    return Reading(stack, stack.secret)


def test_the_python_example_fetches_one_token_for_many_requests(reading: Reading) -> None:
    with reading.client() as api:
        statuses = {api.get("/db/orders").status_code for _ in range(5)}
    assert (statuses, reading.reads) == ({200}, 1)


@pytest.mark.parametrize(("seconds", "reads"), [(3539, 1), (3540, 2)])
def test_the_python_example_renews_a_minute_before_a_token_expires(
    reading: Reading, seconds: float, reads: int
) -> None:
    with reading.client() as api:
        api.get("/db/orders")
        reading.now = seconds
        api.get("/db/orders")
    assert reading.reads == reads


def test_the_python_example_fetches_one_token_for_all_threads(reading: Reading) -> None:
    statuses: list[int] = []
    with reading.client() as api:
        threads = [
            threading.Thread(target=lambda: statuses.append(api.get("/db/orders").status_code)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (statuses, reading.reads) == ([200] * 8, 1)


def test_the_python_example_repeats_a_refused_post_with_its_body() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(401 if len(bodies) == 1 else 200)

    class Two(CALL_API.ClientToken):  # type: ignore[misc] # loaded from a file
        def _fetch(self) -> tuple[str, float]:
            return f"token-{len(bodies)}", 3600.0

    with httpx.Client(transport=httpx.MockTransport(answer), auth=Two(dict)) as api:
        assert api.post("https://api.example/db", json={"a": 1}).status_code == 200
    assert bodies == [b'{"a":1}'] * 2


# --- rotation


@dataclass
class Caller:
    """An agent that calls without pause and renews its token about ten times a second."""

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
        auth = CALL_API.ClientToken(self._credentials, clock=lambda: time.monotonic() * 40_000)
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
        eventually(lambda: len(self.used) >= before + 3 or bool(self.failed))

    @property
    def refused(self) -> list[int | str]:
        return [*self.failed, *(status for status in self.statuses if status != 200)]


@pytest.fixture
def caller(stack: Stack, aws: Aws) -> Iterator[Caller]:
    """It calls throughout the test. What the test does to its client is undone afterwards."""
    configuration = stack.verifier.config.read_text()
    with Caller(stack, aws) as calling:
        yield calling
    stack.issuer.clients[stack.client_id].secrets[:] = [stack.secret]
    if stack.verifier.config.read_text() != configuration:
        configure(stack, configuration)
        eventually(lambda: status_of(stack, stack.client_id) == 200)


def configure(stack: Stack, configuration: str) -> None:
    new = stack.verifier.config.with_suffix(".new")
    new.write_text(configuration)
    new.rename(stack.verifier.config)


def allow(stack: Stack, *clients: str) -> None:
    configuration = yaml.safe_load(stack.verifier.config.read_text())
    configuration["issuers"][0]["clients"] = list(clients)
    configure(stack, yaml.safe_dump(configuration))


def status_of(stack: Stack, client_id: str) -> int:
    token = stack.issuer.mint(stack.issuer.machine_claims(client_id, ["read"]))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{stack.url}/db/orders", headers=headers, trust_env=False).status_code


def rotate(aws: Aws, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "COGNITO_USER_POOL_ID": POOL,
    }
    command = [sys.executable, str(EXAMPLES / "rotate_secret.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_rotation_refuses_no_request(stack: Stack, aws: Aws, caller: Caller) -> None:
    begun = rotate(aws, "begin", SECRET)
    assert (begun.returncode, begun.stderr) == (0, "")
    caller.goes_on()
    finished = rotate(aws, "finish", SECRET, "--overlap", "0")
    assert (finished.returncode, finished.stderr) == (0, "")
    caller.goes_on()

    new = aws.stored(SECRET)["client_secret"]
    assert caller.refused == []
    assert {known["client_secret"] for known in caller.used} == {stack.secret, new}
    with pytest.raises(OAuthError, match="invalid_client"):
        stack.issuer.grant(stack.client_id, stack.secret)


def test_a_rotation_prints_no_secret(stack: Stack, aws: Aws) -> None:
    client_id, secret = stack.issuer.add_client("read")
    aws.keep(SECRET, client_id, secret)
    result = rotate(aws, "begin", SECRET)
    assert result.returncode == 0
    assert not any(known in result.stdout + result.stderr for known in stack.issuer.clients[client_id].secrets)


def test_a_secret_that_is_taken_away_without_overlap_is_noticed_by_the_caller(stack: Stack, caller: Caller) -> None:
    stack.issuer.clients[stack.client_id].secrets[:] = ["another"]
    eventually(lambda: bool(caller.failed))
    assert "invalid_client" in caller.failed[0]


def test_a_move_to_a_second_client_refuses_no_request(stack: Stack, aws: Aws, caller: Caller) -> None:
    client_id, secret = stack.issuer.add_client("read")
    allow(stack, stack.client_id, client_id)
    eventually(lambda: status_of(stack, client_id) == 200)
    aws.keep(SECRET, client_id, secret)
    caller.goes_on()
    allow(stack, client_id)
    eventually(lambda: status_of(stack, stack.client_id) == 403)
    caller.goes_on()
    assert caller.refused == []
    assert caller.used[-1]["client_id"] == client_id


def test_a_rotation_is_not_finished_while_callers_may_hold_the_old_secret(stack: Stack, aws: Aws) -> None:
    client_id, secret = stack.issuer.add_client("read")
    aws.keep(SECRET, client_id, secret)
    assert rotate(aws, "begin", SECRET).returncode == 0
    result = rotate(aws, "finish", SECRET)
    assert (result.returncode, result.stdout) == (1, "")
    assert "come back in 7" in result.stderr
    assert len(stack.issuer.clients[client_id].secrets) == 2


def test_a_rotation_is_not_begun_before_the_last_one_is_finished(stack: Stack, aws: Aws) -> None:
    client_id, secret = stack.issuer.add_client("read")
    aws.keep(SECRET, client_id, secret)
    stack.issuer.clients[client_id].secrets.append("second")
    result = rotate(aws, "begin", SECRET)
    assert (result.returncode, result.stdout) == (1, "")
    assert "finish the last rotation first" in result.stderr


def test_a_new_secret_that_gets_no_token_is_deleted_again(stack: Stack, aws: Aws) -> None:
    client_id, secret = stack.issuer.add_client("read")
    nowhere = f"http://127.0.0.1:{free_port()}"
    aws.secrets[SECRET] = json.dumps({"client_id": client_id, "client_secret": secret, "token_url": nowhere})
    assert rotate(aws, "begin", SECRET).returncode == 1
    assert stack.issuer.clients[client_id].secrets == [secret]
    assert aws.stored(SECRET)["client_secret"] == secret


# --- the nginx block


class Block(Gateway):
    """An nginx.conf around the page's block, with this machine's addresses in it."""

    def render(self) -> str:
        (block,) = DOCS["ingress"].blocks("nginx")
        for theirs, ours in (
            ("unix:/run/m2m-verifier/verifier.sock", f"unix:{self.verifiers[0]}"),
            ("127.0.0.1:9000", self.backends["api"]),
            ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
        ):
            assert block.count(theirs) >= 1
            block = block.replace(theirs, ours)
        head = super().render().partition("  access_log")[0]
        return f"{head}\n  access_log off;\n{block}\n}}\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Every header as it came, and the body."""
    body = (await receive()).get("body", b"")
    heard = {"headers": [[n.decode(), v.decode()] for n, v in scope["headers"]], "body": body.decode()}
    data = json.dumps(heard).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(data))]})
    await send({"type": "http.response.body", "body": data})


@dataclass
class Guarded:
    """Plain nginx as the page has it, a verifier on a Unix socket, an API."""

    api: httpx.Client
    issuer: Issuer
    client_id: str
    uds: Path

    def connections(self) -> set[str]:
        """The verifier's ends of open connections, by inode."""
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {fields[6] for fields in sockets if fields[5:] and fields[5] == "03" and fields[-1] == str(self.uds)}

    def ask(self, method: str = "GET", scopes: tuple[str, ...] = ("read",), **more: Any) -> httpx.Response:
        token = self.issuer.mint(self.issuer.machine_claims(self.client_id, scopes))
        headers = [("Authorization", f"Bearer {token}"), *more.pop("headers", ())]
        return self.api.request(method, "/db/orders", headers=headers, **more)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("plain")
    listener = bind()
    issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
    client_id, _ = issuer.add_client("read", "write")
    rules = [{"path": "/db/**", "methods": ["GET"]}, {"path": "/db/**", "methods": ["POST"], "scope": ["write"]}]
    resource = {"url": "https://api.example/", "authorization_servers": [issuer.url]}
    configuration = {
        "issuers": [{"name": "demo", "profile": "cognito", "issuer": issuer.url, "jwks_url": issuer.jwks_url}],
        "scope_prefix": issuer.prefix,
        "policies": {"api": {"rules": rules, "resource": resource}},
    }
    (folder / "m2m.yaml").write_text(yaml.safe_dump(configuration))
    uds = folder / "verifier.sock"
    command = [sys.executable, "-m", "verifier", "serve", "--config", str(folder / "m2m.yaml"), "--uds", str(uds)]
    command += ["--host", "127.0.0.1", "--metrics-port", str(free_port())]
    with Background(issuer.app, listener), Background(echo) as api:
        verifier = Child(command, folder / "verifier.log")
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(uds))) as direct:
                eventually(lambda: uds.exists() and direct.get("http://m2m/ready").status_code == 200)
            gateway = Block(folder / "nginx", free_port(), [str(uds)], {"api": api.address})
            with Nginx(gateway), httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as client:
                yield Guarded(client, issuer, client_id, uds)
        finally:
            verifier.stop(signal.SIGTERM, 10)


def test_the_block_lets_a_good_token_through_and_tells_the_api_who_calls(guarded: Guarded) -> None:
    answer = guarded.ask()
    assert answer.status_code == 200
    told = {name: value for name, value in answer.json()["headers"] if name.startswith("x-m2m-")}
    scope = f"{guarded.issuer.prefix}read"
    assert told == {"x-m2m-client-id": guarded.client_id, "x-m2m-scope": scope, "x-m2m-issuer": "demo"}


def test_the_block_answers_401_with_a_challenge_and_the_reason(guarded: Guarded) -> None:
    answer = guarded.api.get("/db/orders")
    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (401, "missing_token")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api"')


def test_the_block_answers_403_with_the_reason(guarded: Guarded) -> None:
    answer = guarded.ask("POST", json={})
    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (403, "insufficient_scope")


def test_the_block_hands_the_api_no_forged_identity(guarded: Guarded) -> None:
    forged = [("X-M2M-Role", "root"), ("X-M2M-Client-ID", "root"), ("x-m2m-scope", "root"), ("X-M2M-Issuer", "root")]
    answer = guarded.ask(headers=[*forged, ("X_M2M_Role", "root"), ("X-M2M-Role", "root")])
    assert answer.status_code == 200
    assert "root" not in answer.text


def test_the_block_judges_the_request_and_not_what_the_client_says_it_is(guarded: Guarded) -> None:
    forged = [("X-Original-Method", "GET"), ("X-Original-URL", "https://api.example/db/x")]
    assert guarded.ask("DELETE", headers=forged).status_code == 403


def test_the_block_hands_the_api_the_body(guarded: Guarded) -> None:
    answer = guarded.ask("POST", ("write",), content=b"a body")
    assert answer.json()["body"] == "a body"


def test_the_block_keeps_its_connection_to_the_verifier_whatever_the_request(guarded: Guarded) -> None:
    guarded.ask()
    before = guarded.connections()
    assert len(before) >= 1
    assert guarded.ask("POST", ("write",), content=b"a body").status_code == 200
    assert guarded.connections() == before


def test_the_block_opens_the_protected_resource_document(guarded: Guarded) -> None:
    answer = guarded.api.get("/.well-known/oauth-protected-resource", headers={"Host": "api.example"})
    assert answer.json()["resource"] == "https://api.example/"


def test_the_block_does_not_let_callers_ask_the_verifier_themselves(guarded: Guarded) -> None:
    assert guarded.api.get("/_m2m").status_code == 404


# --- moving


def ask_verifier(stack: Stack, path: str) -> int:
    token = stack.issuer.mint(stack.issuer.machine_claims(stack.client_id, ["read"]))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"http://{stack.verifier.address}{path}", headers=headers, trust_env=False).status_code


def test_a_policy_without_rules_needs_no_original_url(stack: Stack) -> None:
    assert (ask_verifier(stack, "/verify/default"), ask_verifier(stack, "/verify/api")) == (200, 403)


@pytest.mark.parametrize("path", ["/forward-auth/default", "/ext-authz/default/db"])
def test_a_dialect_that_the_page_calls_not_built_is_not_there(stack: Stack, path: str) -> None:
    assert ask_verifier(stack, path) == 404
