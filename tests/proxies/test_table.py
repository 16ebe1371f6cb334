"""One table of requests and forgeries through every proxy, guarded by what `m2m-verifier guard` prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.stage import Answer, eventually, exchange, free_port, request
from tests.minting import SigningKey
from tests.proxies.renderers import LUA
from tests.proxies.stage import PROXIES, Proxy, Stage, decisions, is_refused_while_down, wrong
from tests.proxies.table import NGINX, RESOURCE, TABLE, Row
from verifier.policy.resources import WELL_KNOWN


def test_haproxy_is_one_of_the_proxies() -> None:
    if "haproxy" not in PROXIES:
        pytest.skip(f"{LUA} names no folder with its Lua, which is in no package: docs/proxies.md")


@dataclass
class Passed:
    """All rows' answers through one proxy."""

    proxy: Proxy
    answers: dict[str, Answer | None]
    decisions: dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module", params=PROXIES)
def passed(request: pytest.FixtureRequest, parts: Stage) -> Iterator[Passed]:
    with parts.running(request.param, parts.guard(request.param)) as proxy:
        before = decisions(parts)
        answers = {row.name: proxy.send(row) for row in TABLE}
        last = f"last-{request.param}"
        exchange(proxy.port, request_with_id(last))
        eventually(lambda: last in decisions(parts), "the last decision is in the audit log")
        after = decisions(parts)
        yield Passed(proxy, answers, {name: found[len(before.get(name, [])) :] for name, found in after.items()})


def request_with_id(number: str) -> bytes:
    return request("/db/x", f"X-Request-ID: {number}", "Connection: close")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_request_gets_the_same_decision_and_the_api_the_verified_identity(passed: Passed, row: Row) -> None:
    name = passed.proxy.name

    assert wrong(row, passed.proxy, passed.answers[row.name]) == ""
    if name not in row.by:
        assert [reason for reason, _ in passed.decisions[row.number]] == [row.reason]


def test_the_api_gets_the_path_that_was_checked(passed: Passed) -> None:
    got = {}
    for row in TABLE:
        answer = passed.answers[row.name]
        if answer is not None and answer.status == 200 and answer.body:  # neither HEAD nor a proxy's own answer
            got[row.name] = [("ok", answer.json["target"])], passed.decisions[row.number]

    assert len(got) > 15
    assert [name for name, (arrived, checked) in got.items() if arrived != checked] == []


@pytest.mark.parametrize("row", [row for row in TABLE if row.reason != "ok"], ids=lambda row: row.name)
def test_a_refusal_reaches_the_client_as_far_as_the_proxy_passes_it_on(passed: Passed, row: Row) -> None:
    name, answer = passed.proxy.name, passed.answers[row.name]
    if name in row.by:
        return
    assert answer is not None
    if answer.status == 401:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="api"')
    if name not in NGINX:
        assert answer.headers["x-m2m-reason"] == row.reason
        assert row.method == "HEAD" or json.loads(answer.body)["reason"] == row.reason


def test_the_body_reaches_the_api_and_the_verifier_gets_none(passed: Passed) -> None:
    for name in ("POST with a body", "POST with chunks"):
        answer = passed.answers[name]
        assert answer is not None
        assert answer.json["body"] == "a body"


def test_the_protected_resource_document_is_open(passed: Passed) -> None:
    answer = exchange(passed.proxy.port, request(WELL_KNOWN, "Connection: close"))

    assert (answer.status, json.loads(answer.body)["resource"]) == (200, RESOURCE["url"])


def test_a_dpop_proof_is_checked_against_the_request(passed: Passed) -> None:
    """RFC 9449; the origin is that of the policy's resource."""
    key, issuer = SigningKey.generate("ES256", "agent"), passed.proxy.stage.issuer
    token = issuer.mint({**issuer.machine_claims("etl", ["read"]), "cnf": {"jkt": key.jkt}})

    def ask(target: str) -> Answer:
        proof = key.proof(token.encode(), RESOURCE["url"] + "db/x", iat=int(time.time())).decode()
        lines = f"DPoP: {proof}", f"Authorization: DPoP {token}", "Connection: close"
        return exchange(passed.proxy.port, request(target, *lines))

    allowed, refused = ask("/db/x?q=1"), ask("/db/y")
    assert (allowed.status, allowed.seen("X-M2M-Client-ID")) == (200, ["etl"])
    assert (refused.status, refused.headers["www-authenticate"].partition(" ")[0]) == (401, "DPoP")


@pytest.fixture(scope="module")
def http2() -> Iterator[httpx.Client]:
    """A client for HTTP/2 without TLS."""
    with httpx.Client(http1=False, http2=True, trust_env=False, verify=False, timeout=60) as client:
        yield client


def over_http2(proxy: Proxy, row: Row, client: httpx.Client) -> Answer:
    port = proxy.h2 if proxy.name in (*NGINX, "haproxy") else proxy.port
    token = proxy.token(row)
    lines = [*row.lines, *([f"Authorization: Bearer {token}"] if token else [])]
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    try:
        answer = client.request(
            row.method, f"http://127.0.0.1:{port}/", headers=pairs, content=row.body or None,
            extensions={"target": row.target.encode()},
        )  # fmt: skip
    except (httpx.RemoteProtocolError, httpx.ReadError):  # Envoy resets the stream or the connection
        return Answer(400, {}, b"")
    return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)


HTTP2 = [
    row for row in TABLE
    if row.host == "api.example" and row.target[:1] == "/" and "#" not in row.target
    and not any(line.startswith(("Connection", "Transfer-Encoding")) for line in row.lines)
]  # fmt: skip


@pytest.mark.parametrize("row", HTTP2, ids=lambda row: row.name)
def test_http_2_gets_the_same_decision(passed: Passed, row: Row, http2: httpx.Client) -> None:
    assert wrong(row, passed.proxy, over_http2(passed.proxy, row, http2)) == ""


def test_a_host_with_a_path_does_not_pass_over_http_2(passed: Passed, http2: httpx.Client) -> None:
    """Traefik passes it on there, and leaves the refusal to the verifier."""
    row = Row("a host with a path", target="/other", lines=("Host: h/open",), scopes=None)

    assert over_http2(passed.proxy, row, http2).status == (401 if passed.proxy.name == "traefik" else 400)


def test_while_the_verifier_is_down_nothing_passes(passed: Passed, parts: Stage) -> None:
    name = passed.proxy.name
    with parts.running(name, parts.guard(name), f"127.0.0.1:{free_port()}") as proxy:
        assert is_refused_while_down(proxy)
