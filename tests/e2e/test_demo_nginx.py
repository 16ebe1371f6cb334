"""The demo's nginx behaves as ingress-nginx does. tests/unit/demo/test_nginx.py reads its configuration."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from verifier.demo.api import api
from verifier.demo.nginx import IDENTITY_HEADERS, Gateway, Location, Nginx
from verifier.demo.processes import ProcessError
from verifier.demo.serving import Background, bind, free_port, port_of


class StubVerifier:
    """Allows every request with `Authorization`, and keeps every subrequest."""

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


def test_the_subrequest_is_the_one_of_ingress_nginx(guarded: Guarded, stub: StubVerifier) -> None:
    client = guarded(locations=[Location("/", auth="/verify/api?scope=read")])
    forged = {"X-Original-URL": "http://forged/", "X-Original-Method": "GET", "X-Forwarded-Proto": "https"}
    client.post("/a/../b%2fc?d=1", content=b"body", headers=AUTHORIZED | forged | {"X-Request-ID": "r1"})

    (subrequest,) = stub.seen
    headers = subrequest.headers
    assert (subrequest.method, subrequest.url.path, subrequest.url.query) == ("GET", "/verify/api", "scope=read")
    # httpx resolves dots before it sends; tests/e2e/test_paths.py sends them raw.
    assert headers["X-Original-URL"] == f"{client.base_url}".rstrip("/") + "/b%2fc?d=1"
    assert headers.getlist("X-Original-Method") == ["POST"]
    assert headers["X-Sent-From"] == "nginx-ingress-controller"
    assert (headers["X-Real-IP"], headers["X-Forwarded-For"], headers["X-Request-ID"]) == ("127.0.0.1",) * 2 + ("r1",)
    assert (headers["Connection"], headers["Host"]) == ("close", "verifier")
    assert not {"Content-Length", "X-Forwarded-Proto"} & {name.title() for name in headers}


@pytest.mark.parametrize(("keepalive", "connections"), [(False, 5), (True, 1)])
def test_subrequests_share_a_connection_only_with_keepalive_and_pass_over_a_dead_verifier(
    guarded: Guarded, stub: StubVerifier, keepalive: bool, connections: int
) -> None:
    client = guarded(keepalive=keepalive, dead_verifier=True)
    assert [client.get("/", headers=AUTHORIZED).status_code for _ in range(5)] == [200] * 5
    assert len({request.client.port for request in stub.seen if request.client}) == connections


def test_only_an_allowed_request_reaches_the_api_and_without_forged_identity_headers(
    guarded: Guarded, stub: StubVerifier
) -> None:
    client = guarded()

    refused = client.get("/db")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="stub"')
    assert "method" not in refused.text
    allowed = client.get("/db?x=1", headers=AUTHORIZED | dict.fromkeys(IDENTITY_HEADERS, "forged"))
    assert allowed.json() == {"method": "GET", "path": "/db", "headers": {"X-M2M-Client-ID": "etl"}}
    stub.seen.clear()
    assert client.get("/_external-auth-Lw-Prefix", headers=AUTHORIZED).status_code == 404
    assert stub.seen == []  # the internal location cannot be requested
    client.get("/.well-known/oauth-protected-resource/mcp")
    assert [request.url.path for request in stub.seen] == ["/.well-known/oauth-protected-resource/mcp"]


def test_nginx_that_cannot_start_says_why(tmp_path: Path) -> None:
    with bind() as taken:
        for port, snippet, cause in (
            (free_port(), "nonsense;", 'unknown directive "nonsense"'),
            (port_of(taken), "", "Address already in use"),
        ):
            gateway = Gateway(tmp_path, port, ["127.0.0.1:1"], {"api": "127.0.0.1:2"}, server_snippet=snippet)
            with pytest.raises(ProcessError, match=cause):
                Nginx(gateway).__enter__()
