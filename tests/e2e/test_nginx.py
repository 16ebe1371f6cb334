"""Real nginx in front of the API, with new and with kept connections to the verifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.stage import Answer, Load, Serve, Wire, configuration, entry, eventually, exchange, nginx, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import OPEN_METADATA, Location
from verifier.demo.serving import Background
from verifier.identity import IDENTITY_HEADERS

LISTED = (*IDENTITY_HEADERS, "X-User-ID")
FORGED = [
    f"{spelt}: forged"
    for name in LISTED
    for spelt in (name, name.lower(), name.upper(), name.replace("-", "_"))  # nginx drops the last one by default
]
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
REPORT = {"watched": {"mode": "report", "scope": ["admin"]}}
CONFIGURATION = {
    "policies": {
        "api": {"rules": RULES},
        "mcp": {"scope": ["read"], "resource": RESOURCE},
        **REPORT,
    },
    "roles": {"clients": {"etl": ROLE}},
    "headers": {"X-User-ID": "sub"},
    "audit": "all",
}
LOCATIONS = (
    Location("/db", auth="/verify/api"),
    Location("/mcp", auth="/verify/mcp"),
    Location("/watched", auth="/verify/watched"),
    Location("/narrow", auth="/verify/default?scope=read&scope=write"),
    Location("/", auth="/verify"),
    OPEN_METADATA,
)
# What an operator may write by mistake into the location that asks.
CARELESS = {
    "the body's length is passed on": "proxy_pass_request_body off;",
    "the body itself is passed on": "",
    "upgrades are passed on": 'proxy_pass_request_body off; proxy_set_header Content-Length ""; '
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
}
CARELESS_LOCATION = """
    location = /_careless-%(number)s {
      internal;
      proxy_set_header Connection "";
      %(directives)s
      proxy_http_version 1.1;
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_pass http://verifier/verify/api;
    }
    location /db/careless-%(number)s/ { auth_request /_careless-%(number)s; proxy_pass http://api; }
"""
MODES = pytest.mark.parametrize("front", [False, True], ids=["new connections", "kept connections"], indirect=True)
KEPT = pytest.mark.parametrize("front", [True], ids=["kept connections"], indirect=True)


@dataclass
class Front:
    """nginx's port, who signs tokens for what is behind it, and the verifier."""

    port: int
    issuer: Issuer
    serve: Serve

    def token(self, *scopes: str, client: str = "etl") -> str:
        return self.issuer.mint(self.issuer.machine_claims(client, scopes))

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
    snippets = [CARELESS_LOCATION % {"number": n, "directives": text} for n, text in enumerate(CARELESS.values())]
    with nginx(
        tmp_path_factory.mktemp("front"), api, serve, locations=LOCATIONS, response_headers=LISTED,
        keepalive=request.param, server_snippet="".join(snippets),
    ) as running:  # fmt: skip
        yield Front(running.gateway.port, lab, serve)


@MODES
@pytest.mark.parametrize(("client", "role"), [("etl", [ROLE]), ("without-a-role", [])])
def test_the_api_gets_the_verified_identity_whatever_the_client_sends(
    front: Front, client: str, role: list[str]
) -> None:
    answer = front.get("/db/orders?x=1", *FORGED, token=front.token("read", client=client))

    assert (answer.status, answer.json["target"]) == (200, "/db/orders")
    assert {name: answer.seen(name) for name in LISTED} == {
        "X-M2M-Client-ID": [client],
        "X-M2M-Scope": [front.issuer.prefix + "read"],
        "X-M2M-Role": role,
        "X-M2M-Issuer": ["lab"],
        "X-User-ID": [client],
    }
    assert "forged" not in answer.body.decode()


@MODES
@pytest.mark.parametrize(
    ("target", "token", "parts"),
    [
        ("/db/orders", None, ['Bearer realm="api"']),
        ("/db/orders", "not-a-token", ['Bearer realm="api", error="invalid_token", error_description=']),
        ("/mcp", None, ['="https://api.example/.well-known/oauth-protected-resource/mcp"', 'scope="{prefix}read"']),
    ],
    ids=["no token", "a broken token", "a protected resource"],
)
def test_a_401_keeps_its_challenge(front: Front, target: str, token: str | None, parts: list[str]) -> None:
    answer = front.get(target, token=token)

    assert answer.status == 401
    assert all(part.format(prefix=front.issuer.prefix) in answer.headers["www-authenticate"] for part in parts)


@MODES
def test_the_well_known_document_is_read_without_a_token(front: Front) -> None:
    answer = front.get("/.well-known/oauth-protected-resource/mcp")
    assert (answer.status, answer.json["resource"]) == (200, RESOURCE["url"])


@MODES
@pytest.mark.parametrize(
    ("target", "method"), [("/db/orders", "POST"), ("/db/orders", "DELETE"), ("/narrow", "GET")], ids=str
)
def test_a_request_beyond_the_token_is_403(front: Front, target: str, method: str) -> None:
    assert front.get(target, "Content-Length: 0", token=front.token("read"), method=method).status == 403


@MODES
@pytest.mark.parametrize(
    ("line", "sent", "body"),
    [
        ("Content-Length: 100000", b"x" * 100_000, "x" * 100_000),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world"),
    ],
    ids=["with its length", "in chunks"],
)
def test_a_post_hands_its_whole_body_to_the_api_and_none_to_the_verifier(
    front: Front, line: str, sent: bytes, body: str
) -> None:
    with Wire(front.port) as wire:
        for _ in range(3):
            answer = wire.ask(request("/db/o", line, method="POST", token=front.token("write")) + sent)
            assert (answer.status, answer.json["body"]) == (200, body)


@MODES
def test_a_refused_post_costs_no_later_request(front: Front) -> None:
    for _ in range(3):
        refused = exchange(front.port, request("/db/o", "Content-Length: 5", method="POST") + b"hello")
        assert refused.status == 401
        assert front.get("/db/orders", token=front.token("read")).status == 200


@MODES
def test_expect_100_continue_is_answered_and_the_body_arrives(front: Front) -> None:
    lines = ("Expect: 100-continue", "Content-Length: 5")
    with Wire(front.port) as wire:
        assert wire.ask(request("/db/o", *lines, method="POST", token=front.token("write"))).status == 100
        answer = wire.ask(b"hello")
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
            assert wire.ask(request("/db/orders", method="HEAD", token=token), "HEAD").status == status


@MODES
def test_report_mode_lets_everyone_in_and_names_only_who_is_verified(front: Front) -> None:
    for token, identity in ((None, []), ("not-a-token", []), (front.token("read"), ["etl"])):
        answer = front.get("/watched", "X-M2M-Client-ID: forged", token=token)
        assert (answer.status, answer.seen("X-M2M-Client-ID")) == (200, identity)


@pytest.mark.parametrize("limit", [3584, 3800], ids=["default", "raised"])
def test_the_largest_allowed_answer_fills_the_buffer_of_nginx_and_no_more(
    lab: Issuer, api: Background, tmp_path: Path, limit: int
) -> None:
    """With the longest `Cache-Control`, and with all that the server adds."""
    limits = {} if limit == 3584 else {"max_header_bytes": limit}
    settings = configuration(entry(lab), policies=REPORT, nginx_cache_ttl=3600, **limits)

    def token(length: int) -> str:
        return lab.mint(lab.machine_claims("etl", [], lifetime=36_000) | {"scope": "s" * length})

    with Serve(settings, tmp_path) as serve, nginx(tmp_path, api, serve, locations=LOCATIONS[2:]) as front:

        def head(target: str, length: int) -> bytes:
            with Wire(serve.port) as wire:
                wire.send(request(target, "Connection: close", token=token(length)))
                return wire.rest().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

        for target in ("/verif%79", "/verify"):  # Starlette, fast path
            room = limit - len(head(target, 0))
            largest, too_large = head(target, room), head(target, room + 1)
            assert largest.startswith(b"HTTP/1.1 200 ")
            assert b"max-age=3600" in largest
            assert len(largest) == limit
            assert too_large.startswith(b"HTTP/1.1 403 ")
            assert b"headers_too_large" in too_large
        for length, status in ((room, 200), (room + 1, 403), (5500, 403)):
            sent = token(length)
            found = [exchange(front.gateway.port, request(path, token=sent)).status for path in ("/any", "/watched")]
            assert found == [status, 200], f"{length} bytes"


@KEPT
@pytest.mark.parametrize("number", range(len(CARELESS)), ids=CARELESS)
def test_a_careless_location_on_kept_connections_mixes_no_requests(front: Front, number: int) -> None:
    target = f"/db/careless-{number}/o"
    reader, writer = front.token("read"), front.token("write")
    body = b"GET /verify HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    for _ in range(5):
        for token, status in ((writer, 200), (reader, 403), (None, 401)):
            post = request(target, f"Content-Length: {len(body)}", method="POST", token=token)
            assert exchange(front.port, post + body).status == status
            assert front.get(target, "Connection: Upgrade", "Upgrade: websocket", token=reader).status == 200
            assert front.get(target, token=writer).status == 403
            assert front.get(target).status == 401


@KEPT
def test_an_idle_pause_on_kept_connections_loses_nothing(front: Front) -> None:
    """It is longer than uvicorn would wait."""
    with Load(front.port, front.token("read"), threads=8, pause=6) as load:
        load.more(8)
        before = connections_to(front.serve.port)
        load.more(8)
        assert before & connections_to(front.serve.port), "no connection was kept over the pause: nothing was tested"
        assert set(load.stop()) == {"200"}


def connections_to(port: int) -> set[str]:
    """The clients' ends of the connections to a port on this machine."""
    columns = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {own for _, own, other, state, *_ in columns if state == "01" and int(other.partition(":")[2], 16) == port}


@KEPT
def test_the_audit_line_of_a_request_names_what_nginx_saw(front: Front) -> None:
    sent = ("X-Request-ID: r-1", f"traceparent: {TRACEPARENT}", "Content-Length: 0")
    answer = front.get("/db/a/../b?secret=1", *sent, method="POST", token=front.token("write"))
    assert (answer.status, answer.seen("traceparent")) == (200, [TRACEPARENT])

    def lines() -> list[dict[str, str]]:
        return [line for line in map(json.loads, list(front.serve.output)) if line["request_id"] == "r-1"]

    (line,) = eventually(lines, "its line is written")
    assert (line["method"], line["host"], line["path"]) == ("POST", "api.example", "/db/a/../b")
    assert (line["remote_addr"], line["client_id"]) == ("127.0.0.1", "etl")
    assert line["trace_id"] == TRACEPARENT.split("-")[1]
