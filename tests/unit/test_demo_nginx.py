"""The demo's nginx: what it renders is valid, and behaves as ingress-nginx does."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from verifier.demo.api import api
from verifier.demo.nginx import IDENTITY_HEADERS, OPEN_METADATA, Gateway, Location, Nginx, find_nginx
from verifier.demo.processes import ProcessError
from verifier.demo.serving import Background, bind, free_port, port_of


class StubVerifier:
    """Allows what carries `Authorization`, and keeps every subrequest."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self.seen.append(request)
        if "Authorization" in request.headers:
            answer = Response(headers=dict.fromkeys(IDENTITY_HEADERS, "") | {"X-M2M-Client-ID": "etl"})
        else:
            answer = Response(status_code=401, headers={"WWW-Authenticate": 'Bearer realm="stub"'})
        await answer(scope, receive, send)


Guarded = Callable[..., httpx.Client]


@pytest.fixture
def stub() -> StubVerifier:
    return StubVerifier()


@pytest.fixture
def guarded(stub: StubVerifier, tmp_path: Path) -> Iterator[Guarded]:
    """Starts nginx in front of the API with the stub as verifier; returns a client of it."""
    running = contextlib.ExitStack()

    def start(*, dead_verifier: bool = False, **options: object) -> httpx.Client:
        verifiers = [verifier.address]
        if dead_verifier:
            verifiers.insert(0, f"127.0.0.1:{free_port()}")
        settings = {"verifiers": verifiers, "backends": {"api": backend.address}} | options
        gateway = Gateway(tmp_path / "nginx", free_port(), **settings)  # type: ignore[arg-type]
        running.enter_context(Nginx(gateway))
        client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False)
        return running.enter_context(client)

    with Background(stub) as verifier, Background(api) as backend, running:
        yield start


AUTHORIZED = {"Authorization": "Bearer x"}


@pytest.mark.parametrize("keepalive", [False, True])
def test_nginx_accepts_what_is_rendered(tmp_path: Path, keepalive: bool) -> None:
    gateway = Gateway(
        tmp_path,
        free_port(),
        verifiers=["127.0.0.1:1", "127.0.0.1:2"],
        backends={"api": "127.0.0.1:3"},
        locations=[Location("/", auth="/verify"), Location("/db", auth="/verify/api?scope=read"), OPEN_METADATA],
        keepalive=keepalive,
    )
    (tmp_path / "nginx.conf").write_text(gateway.render())
    command = [find_nginx(), "-t", "-q", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_path_becomes_the_two_locations_of_ingress_nginx(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, 8080, ["127.0.0.1:1"], {"api": "127.0.0.1:2"}, [Location("/db", auth="/verify/api")])
    rendered = gateway.render()
    for line in (
        "location = /_external-auth-L2RiLw-Prefix {",
        "location /db/ {",
        "auth_request /_external-auth-L2RiLw-Prefix;",
        "location = /_external-auth-L2Ri-Exact {",
        "location = /db {",
        "auth_request_set $authHeader0 $upstream_http_x_m2m_client_id;",
        "proxy_set_header 'X-M2M-Client-ID' $authHeader0;",
        'set $target "http://verifier/verify/api";',
    ):
        assert line in rendered
    assert "proxy_method" not in rendered


def test_the_subrequest_is_the_one_of_ingress_nginx(guarded: Guarded, stub: StubVerifier) -> None:
    client = guarded(locations=[Location("/", auth="/verify/api?scope=read")])
    forged = {"X-Original-URL": "http://forged/", "X-Original-Method": "GET", "X-Forwarded-Proto": "https"}
    client.post("/a/../b%2fc?d=1", content=b"body", headers=AUTHORIZED | forged | {"X-Request-ID": "r1"})

    (subrequest,) = stub.seen
    headers = subrequest.headers
    assert (subrequest.method, subrequest.url.path, subrequest.url.query) == ("GET", "/verify/api", "scope=read")
    # httpx resolves dots before it sends; the raw form is left to the tests of paths.
    assert headers["X-Original-URL"] == f"{client.base_url}".rstrip("/") + "/b%2fc?d=1"
    assert headers.getlist("X-Original-Method") == ["POST"]
    assert headers["X-Sent-From"] == "nginx-ingress-controller"
    assert (headers["X-Real-IP"], headers["X-Forwarded-For"], headers["X-Request-ID"]) == ("127.0.0.1",) * 2 + ("r1",)
    assert (headers["Connection"], headers["Host"]) == ("close", "verifier")
    assert not {"Content-Length", "X-Forwarded-Proto"} & {name.title() for name in headers}


@pytest.mark.parametrize(("keepalive", "connections"), [(False, 5), (True, 1)])
def test_subrequests_share_a_connection_only_with_keepalive(
    guarded: Guarded, stub: StubVerifier, keepalive: bool, connections: int
) -> None:
    client = guarded(keepalive=keepalive)
    assert [client.get("/", headers=AUTHORIZED).status_code for _ in range(5)] == [200] * 5
    assert len({request.client.port for request in stub.seen if request.client}) == connections


def test_a_401_keeps_its_challenge_and_never_reaches_the_api(guarded: Guarded) -> None:
    answer = guarded().get("/db")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="stub"')
    assert "method" not in answer.text


def test_forged_identity_headers_are_overwritten_or_gone(guarded: Guarded) -> None:
    answer = guarded().get("/db?x=1", headers=AUTHORIZED | dict.fromkeys(IDENTITY_HEADERS, "forged"))
    assert answer.json() == {"method": "GET", "path": "/db", "headers": {"X-M2M-Client-ID": "etl"}}


def test_the_metadata_document_is_asked_of_the_verifier_without_a_subrequest(
    guarded: Guarded, stub: StubVerifier
) -> None:
    guarded().get("/.well-known/oauth-protected-resource/mcp")
    assert [request.url.path for request in stub.seen] == ["/.well-known/oauth-protected-resource/mcp"]


def test_the_internal_location_cannot_be_asked_for(guarded: Guarded, stub: StubVerifier) -> None:
    assert guarded().get("/_external-auth-Lw-Prefix", headers=AUTHORIZED).status_code == 404
    assert stub.seen == []


@pytest.mark.parametrize("keepalive", [False, True])
def test_a_dead_verifier_costs_nothing_while_another_lives(guarded: Guarded, keepalive: bool) -> None:
    client = guarded(dead_verifier=True, keepalive=keepalive)
    assert [client.get("/", headers=AUTHORIZED).status_code for _ in range(10)] == [200] * 10


def test_nginx_that_cannot_start_says_why(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, free_port(), ["127.0.0.1:1"], {"api": "127.0.0.1:2"}, server_snippet="nonsense;")
    with pytest.raises(ProcessError, match='unknown directive "nonsense"'):
        Nginx(gateway).__enter__()


def test_a_taken_port_is_not_mistaken_for_nginx(tmp_path: Path) -> None:
    with bind() as taken:
        gateway = Gateway(tmp_path, port_of(taken), ["127.0.0.1:1"], {"api": "127.0.0.1:2"})
        with pytest.raises(ProcessError, match="Address already in use"):
            Nginx(gateway).__enter__()


def test_a_missing_nginx_is_one_line_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ProcessError, match=r"^nginx is not installed; on Debian: apt-get install nginx$"):
        find_nginx()
