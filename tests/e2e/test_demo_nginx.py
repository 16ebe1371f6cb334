"""The demo's nginx asks as ingress-nginx does. tests/e2e/test_nginx.py puts it in front of a real verifier."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from verifier.demo.api import api
from verifier.demo.nginx import Gateway, Location, Nginx
from verifier.demo.processes import ProcessError
from verifier.demo.serving import Background, bind, free_port, port_of

Guarded = Callable[..., httpx.Client]


@pytest.fixture
def seen() -> list[Request]:
    """The subrequests. Each is answered 200."""
    return []


@pytest.fixture
def guarded(seen: list[Request], tmp_path: Path) -> Iterator[Guarded]:
    """Starts nginx in front of the API, with a verifier that is not running beside one that is; a client of nginx."""

    async def verifier(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(Request(scope))
        await Response()(scope, receive, send)

    def start(**options: object) -> httpx.Client:
        verifiers = [f"127.0.0.1:{free_port()}", running.enter_context(Background(verifier)).address]
        backends = {"api": running.enter_context(Background(api)).address}
        gateway = Gateway(tmp_path / "nginx", free_port(), verifiers, backends, **options)  # type: ignore[arg-type]
        running.enter_context(Nginx(gateway))
        return running.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False))

    with contextlib.ExitStack() as running:
        yield start


def test_the_subrequest_is_the_one_of_ingress_nginx(guarded: Guarded, seen: list[Request]) -> None:
    client = guarded(locations=[Location("/", auth="/verify/api?scope=read")])
    forged = {"X-Original-URL": "http://forged/", "X-Original-Method": "GET", "X-Forwarded-Proto": "https"}
    client.post("/a/../b%2fc?d=1", content=b"body", headers=forged | {"X-Request-ID": "r1"})

    (subrequest,) = seen
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
    guarded: Guarded, seen: list[Request], keepalive: bool, connections: int
) -> None:
    client = guarded(keepalive=keepalive)
    assert [client.get("/").status_code for _ in range(5)] == [200] * 5
    assert len({request.client.port for request in seen if request.client}) == connections


def test_the_internal_location_cannot_be_requested(guarded: Guarded, seen: list[Request]) -> None:
    assert (guarded().get("/_external-auth-Lw-Prefix").status_code, seen) == (404, [])


def test_nginx_that_cannot_start_says_why(tmp_path: Path) -> None:
    with bind() as taken:
        for port, snippet, cause in (
            (free_port(), "nonsense;", 'unknown directive "nonsense"'),
            (port_of(taken), "", "Address already in use"),
        ):
            gateway = Gateway(tmp_path, port, ["127.0.0.1:1"], {"api": "127.0.0.1:2"}, server_snippet=snippet)
            with pytest.raises(ProcessError, match=cause):
                Nginx(gateway).__enter__()
