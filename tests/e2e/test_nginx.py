"""Real nginx in front of the API, with new and with kept connections to the verifier."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.stage import Answer, Serve, Wire, configuration, entry, exchange, free_port, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import OPEN_METADATA, Gateway, Location, Nginx
from verifier.demo.serving import Background
from verifier.identity import IDENTITY_HEADERS

LISTED = (*IDENTITY_HEADERS, "X-User-ID")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROLE = "arn:aws:iam::123456789012:role/etl"
RESOURCE = {
    "url": "https://api.example/mcp",
    "authorization_servers": ["https://login.example"],
    "scopes_supported": ["read"],
}
RULES = [
    {"path": "/db/**", "methods": ["GET", "HEAD"], "scope": ["read"]},
    {"path": "/db/**", "methods": ["POST", "PUT"], "scope": ["write"]},
]
CONFIGURATION = {
    "policies": {
        "api": {"rules": RULES},
        "mcp": {"scope": ["read"], "resource": RESOURCE},
        "watched": {"mode": "report", "scope": ["admin"]},
    },
    "roles": {"clients": {"etl": ROLE}},
    "headers": {"X-User-ID": "sub"},
}
LOCATIONS = (
    Location("/db", auth="/verify/api"),
    Location("/mcp", auth="/verify/mcp"),
    Location("/watched", auth="/verify/watched"),
    Location("/narrow", auth="/verify/default?scope=read&scope=write"),
    Location("/", auth="/verify"),
    OPEN_METADATA,
)
MODES = pytest.mark.parametrize("front", [False, True], ids=["new connections", "kept connections"], indirect=True)


@dataclass
class Front:
    """nginx's port, and who signs tokens for what is behind it."""

    port: int
    issuer: Issuer
    keepalive: bool
    serve: Serve

    def token(self, *scopes: str, client: str = "etl", **claims: object) -> str:
        return self.issuer.mint(self.issuer.machine_claims(client, scopes) | claims)

    def get(self, target: str, *lines: str, token: str | None = None, method: str = "GET") -> Answer:
        return exchange(self.port, request(target, *lines, token=token, method=method), method)


@pytest.fixture(scope="module")
def serve(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(configuration(entry(lab), **CONFIGURATION), tmp_path_factory.mktemp("nginx")) as running:
        yield running


@pytest.fixture(scope="module")
def front(
    request: pytest.FixtureRequest, lab: Issuer, api: Background, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    keepalive = bool(request.param)
    gateway = Gateway(
        tmp_path_factory.mktemp("front"),
        free_port(),
        [serve.address],
        {"api": api.address},
        LOCATIONS,
        response_headers=LISTED,
        keepalive=keepalive,
    )
    with Nginx(gateway):
        yield Front(gateway.port, lab, keepalive, serve)


@MODES
def test_an_allowed_request_reaches_the_api_with_its_identity(front: Front) -> None:
    answer = front.get("/db/orders?x=1", token=front.token("read"))
    assert answer.status == 200
    assert answer.json["target"].startswith("/db/orders")
    assert {name: answer.seen(name) for name in LISTED} == {
        "X-M2M-Client-ID": ["etl"],
        "X-M2M-Scope": [front.issuer.prefix + "read"],
        "X-M2M-Role": [ROLE],
        "X-M2M-Issuer": ["lab"],
        "X-User-ID": ["etl"],
    }


@MODES
@pytest.mark.parametrize("client", ["etl", "without-a-role"])
def test_forged_identity_headers_never_reach_the_api(front: Front, client: str) -> None:
    forged = []
    for name in LISTED:
        forged += [f"{name}: forged", f"{name.lower()}: forged", f"{name.upper()}: forged too"]
        forged += [f"{name.replace('-', '_')}: forged"]  # which nginx drops by default
    answer = front.get("/any", *forged, token=front.token(client=client))
    assert answer.status == 200
    assert "forged" not in answer.body.decode()
    assert answer.seen("X-M2M-Role") == ([ROLE] if client == "etl" else [])


@MODES
def test_a_401_keeps_its_challenge(front: Front) -> None:
    answer = front.get("/db/orders")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="api"')

    answer = front.get("/db/orders", token="not-a-token")
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith(
        'Bearer realm="api", error="invalid_token", error_description='
    )


@MODES
def test_a_401_of_a_protected_resource_names_its_document(front: Front) -> None:
    challenge = front.get("/mcp").headers["www-authenticate"]
    assert 'resource_metadata="https://api.example/.well-known/oauth-protected-resource/mcp"' in challenge
    assert f'scope="{front.issuer.prefix}read"' in challenge


@MODES
def test_the_well_known_document_is_read_without_a_token(front: Front) -> None:
    answer = front.get("/.well-known/oauth-protected-resource/mcp")
    assert answer.status == 200
    assert answer.json["resource"] == RESOURCE["url"]


@MODES
@pytest.mark.parametrize(
    ("target", "method"), [("/db/orders", "POST"), ("/db/orders", "DELETE"), ("/narrow", "GET")], ids=str
)
def test_a_request_beyond_the_token_is_403(front: Front, target: str, method: str) -> None:
    assert front.get(target, "Content-Length: 0", token=front.token("read"), method=method).status == 403


@MODES
def test_a_post_hands_its_whole_body_to_the_api_and_none_to_the_verifier(front: Front) -> None:
    token, body = front.token("write"), b"x" * 100_000
    with Wire(front.port) as wire:
        for _ in range(3):
            wire.send(request("/db/o", f"Content-Length: {len(body)}", method="POST", token=token) + body)
            answer = wire.read()
            assert answer is not None
            assert (answer.status, answer.json["body"]) == (200, body.decode())


@MODES
def test_a_refused_post_costs_no_later_request(front: Front) -> None:
    for _ in range(3):
        refused = exchange(front.port, request("/db/o", "Content-Length: 5", method="POST") + b"hello")
        assert refused.status == 401
        assert front.get("/db/orders", token=front.token("read")).status == 200


@MODES
def test_a_chunked_body_reaches_the_api(front: Front) -> None:
    head = request("/db/o", "Transfer-Encoding: chunked", method="POST", token=front.token("write"))
    answer = exchange(front.port, head + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert (answer.status, answer.json["body"]) == (200, "hello world")


@MODES
def test_expect_100_continue_is_answered_and_the_body_arrives(front: Front) -> None:
    lines = ("Expect: 100-continue", "Content-Length: 5")
    with Wire(front.port) as wire:
        wire.send(request("/db/o", *lines, method="POST", token=front.token("write")))
        first = wire.read()
        assert first is not None
        assert first.status == 100
        wire.send(b"hello")
        answer = wire.read()
    assert answer is not None
    assert (answer.status, answer.json["body"]) == (200, "hello")


@MODES
def test_websocket_upgrade_headers_reach_the_api_and_disturb_no_verdict(front: Front) -> None:
    lines = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: x3JJHMbDL1E=",
    )
    for _ in range(3):
        answer = front.get("/db/socket", *lines, token=front.token("read"))
        assert (answer.status, answer.seen("upgrade")) == (200, ["websocket"])
        assert front.get("/db/socket", *lines).status == 401


@MODES
def test_head_is_decided_as_head_and_has_no_body(front: Front) -> None:
    with Wire(front.port) as wire:
        for token, status in ((front.token("read"), 200), (front.token("other"), 403), (None, 401)):
            wire.send(request("/db/orders", method="HEAD", token=token))
            answer = wire.read("HEAD")
            assert answer is not None
            assert answer.status == status


@MODES
def test_http_1_0_is_answered(front: Front) -> None:
    head = request("/db/orders", version="1.0", token=front.token("read"))
    assert exchange(front.port, head).status == 200
    without_host = head.replace(b"Host: api.example\r\n", b"").replace(b"/db/orders", b"/any")
    assert exchange(front.port, without_host).status == 200


@MODES
def test_two_authorization_headers_are_nginx_s_400(front: Front) -> None:
    token = front.token("read")
    assert front.get("/db/orders", f"Authorization: Bearer {token}", token=token).status == 400


@MODES
def test_report_mode_lets_everyone_in_and_names_only_who_is_verified(front: Front) -> None:
    for token, identity in ((None, []), ("not-a-token", []), (front.token("read"), ["etl"])):
        answer = front.get("/watched", "X-M2M-Client-ID: forged", token=token)
        assert (answer.status, answer.seen("X-M2M-Client-ID")) == (200, identity)


@MODES
def test_no_size_of_scope_makes_nginx_answer_500(front: Front) -> None:
    statuses = []
    for length in [*range(2500, 3600, 100), *range(3600, 4300, 50), 5500]:
        token = front.token(scope="s" * length)
        statuses.append(front.get("/any", token=token).status)
        assert front.get("/watched", token=token).status == 200, f"report mode, {length} bytes"
    assert set(statuses) == {200, 403}
    assert statuses == sorted(statuses)


def test_a_raised_limit_passes_3800_bytes_of_headers_and_refuses_more(
    lab: Issuer, api: Background, tmp_path: Path
) -> None:
    settings = configuration(entry(lab), max_header_bytes=3800)
    with Serve(settings, tmp_path) as serve:
        statuses = []
        for length in range(3500, 3900, 10):
            token = lab.mint(lab.machine_claims("etl", ()) | {"scope": "s" * length})
            with Wire(serve.port) as wire:
                wire.send(request("/verify", token=token))
                answer = wire.read()
            assert answer is not None
            if answer.status == 200:
                head = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in answer.headers.items()), "", ""]
                assert len("\r\n".join(head)) <= 3800
                largest = token
            else:
                assert answer.headers["x-m2m-reason"] == "headers_too_large"
            statuses.append(answer.status)
        assert statuses[0] == 200
        assert statuses[-1] == 403
        gateway = Gateway(tmp_path / "front", free_port(), [serve.address], {"api": api.address})
        with Nginx(gateway):
            assert exchange(gateway.port, request("/", token=largest)).status == 200


# What an operator may write by mistake into the location that asks.
CARELESS = {
    "the body's length is passed on": "proxy_pass_request_body off;",
    "the body itself is passed on": "",
    "upgrades are passed on": 'proxy_pass_request_body off; proxy_set_header Content-Length ""; '
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
}


@pytest.mark.parametrize("directives", CARELESS.values(), ids=CARELESS.keys())
def test_a_careless_location_on_kept_connections_mixes_no_requests(
    lab: Issuer, api: Background, serve: Serve, tmp_path: Path, directives: str
) -> None:
    connection = "" if "Connection" in directives else 'proxy_set_header Connection "";'
    snippet = f"""
    location = /_careless {{
      internal;
      {directives}
      proxy_http_version 1.1;
      {connection}
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_pass http://verifier/verify/api;
    }}
    location /db/ {{ auth_request /_careless; proxy_pass http://api; }}
    """
    gateway = Gateway(
        tmp_path / "front",
        free_port(),
        [serve.address],
        {"api": api.address},
        [Location("/other", auth="/verify")],
        keepalive=True,
        server_snippet=snippet,
    )
    reader, writer = (lab.mint(lab.machine_claims("etl", [scope])) for scope in ("read", "write"))
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    body = b"GET /verify HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    with Nginx(gateway):
        for _ in range(5):
            for token, status in ((writer, 200), (reader, 403), (None, 401)):
                post = request("/db/o", f"Content-Length: {len(body)}", method="POST", token=token)
                assert exchange(gateway.port, post + body).status == status
                assert exchange(gateway.port, request("/db/o", *upgrade, token=reader)).status == 200
                assert exchange(gateway.port, request("/db/o", token=writer)).status == 403
                assert exchange(gateway.port, request("/db/o")).status == 401


PAUSES = (4.9, 5.0, 5.1, 6.0)


def test_idle_pauses_on_kept_connections_lose_nothing(
    lab: Issuer, api: Background, serve: Serve, tmp_path: Path
) -> None:
    token, count = lab.mint(lab.machine_claims("etl", ["read"])), 8
    statuses: list[int] = []
    kept: list[int] = []

    def burst(port: int) -> None:
        barrier = threading.Barrier(count)

        def one() -> None:
            barrier.wait()
            statuses.extend(exchange(port, request("/db/x", token=token)).status for _ in range(5))

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def pause(seconds: float, gateway: Gateway) -> None:
        with Nginx(gateway) as nginx:
            burst(gateway.port)
            before = connections(nginx, serve.port)
            time.sleep(seconds)
            kept.append(len(before & connections(nginx, serve.port)))
            burst(gateway.port)

    pausing = []
    for seconds in PAUSES:
        gateway = Gateway(
            tmp_path / str(seconds), free_port(), [serve.address], {"api": api.address}, LOCATIONS, keepalive=True
        )
        pausing.append(threading.Thread(target=pause, args=(seconds, gateway)))
    for thread in pausing:
        thread.start()
    for thread in pausing:
        thread.join()

    assert statuses == [200] * (len(PAUSES) * 2 * count * 5)
    assert len(kept) == len(PAUSES)
    assert all(kept), "no connection was kept over the pause: nothing was tested"


def connections(nginx: Nginx, port: int) -> set[str]:
    """Inodes of the sockets that nginx's workers hold to the port."""
    established = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[3] == "01" and int(columns[2].rpartition(":")[2], 16) == port:
            established.add(columns[9])
    held = set()
    pid = int((nginx.gateway.prefix / "nginx.pid").read_text())
    for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for descriptor in Path(f"/proc/{worker}/fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(descriptor.readlink().name.removeprefix("socket:[").removesuffix("]"))
    return established & held


def test_the_audit_line_of_a_request_names_what_nginx_saw(lab: Issuer, api: Background, tmp_path: Path) -> None:
    settings = configuration(entry(lab), audit="all", policies=CONFIGURATION["policies"])
    with Serve(settings, tmp_path) as serve:
        gateway = Gateway(tmp_path / "front", free_port(), [serve.address], {"api": api.address}, LOCATIONS)
        with Nginx(gateway):
            token = lab.mint(lab.machine_claims("etl", ["write"]))
            sent = ("X-Request-ID: r-1", f"traceparent: {TRACEPARENT}", "Content-Length: 0")
            answer = exchange(gateway.port, request("/db/a/../b?secret=1", *sent, method="POST", token=token))
            assert (answer.status, answer.seen("traceparent")) == (200, [TRACEPARENT])
        serve.stop()
        (line,) = map(json.loads, serve.output)
        assert (line["method"], line["host"], line["path"]) == ("POST", "api.example", "/db/a/../b")
        assert (line["request_id"], line["remote_addr"], line["client_id"]) == ("r-1", "127.0.0.1", "etl")
        assert line["trace_id"] == TRACEPARENT.split("-")[1]
