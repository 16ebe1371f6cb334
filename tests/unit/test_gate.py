"""The straight line: from a request to a decision, and from a subrequest to an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import ABSENT, Clock, SigningKey, make_issuer
from tests.unit.test_policy import API
from verifier.decision import Decision
from verifier.reasons import Reason
from verifier.gate import AuthEndpoint, Gate
from verifier.identity import wire_size
from verifier.policy.policies import ClientIds, Policies, Policy, Revoked
from verifier.proxies.answers import Answers
from verifier.request import AuthRequest
from verifier.tokens.cache import CachedVerifier
from verifier.tokens.verify import TokenVerifier

Mint = Callable[..., bytes]
MakeGate = Callable[..., Gate]


@pytest.fixture
def make_gate(signer: SigningKey, clock: Clock) -> MakeGate:
    def make(
        *,
        revoked: Revoked | None = None,
        max_header_bytes: int = 3584,
        ttl: int = 0,
        verifier: Any = None,
        **issuer: Any,
    ) -> Gate:
        real = TokenVerifier(
            [make_issuer([signer.public()], **issuer)],
            clock=clock, leeway=10, role_of=lambda *_: "", mapped_headers={},
        )  # fmt: skip
        known = {
            "default": Policy("default"),
            "api": API,
            "report": Policy("report", needs=(("admin",),), report=True),
            "role": Policy("role", role_required=True),
        }
        cache = CachedVerifier(verifier or real, size=10, ttl=300, clock=clock)
        return Gate(
            cache,
            Policies(known, ClientIds(("lab",))),
            revoked or Revoked(),
            Answers((), ttl, clock, max_header_bytes),
        )

    return make


def ask(
    token: bytes | None = None, policy: str = "default", path: str = "/db/a", method: str = "GET", **changes: Any
) -> AuthRequest:
    given: dict[str, Any] = {
        "policy": policy,
        "query": b"",
        "authorization": None if token is None else b"Bearer " + token,
        "method": method,
        "url": b"https://api.example" + path.encode(),
    }
    return AuthRequest(**(given | changes))


async def test_a_valid_token_is_allowed(make_gate: MakeGate, mint: Mint) -> None:
    decision = await make_gate().decide(ask(mint()))

    assert decision.reason is Reason.OK
    assert (decision.issuer, decision.token.principal.client_id, decision.policy.name, decision.cached) == (
        "lab", "etl", "default", False,
    )  # type: ignore[union-attr]  # fmt: skip


async def test_a_known_token_is_told_to_be_cached(make_gate: MakeGate, mint: Mint) -> None:
    gate, token = make_gate(), mint()
    await gate.decide(ask(token))

    assert (await gate.decide(ask(token))).cached is True


async def test_a_known_token_is_denied_with_its_identity(make_gate: MakeGate, mint: Mint) -> None:
    decision = await make_gate().decide(ask(mint(scope="write"), "api"))

    assert (decision.reason, decision.issuer, decision.scope) == (Reason.INSUFFICIENT_SCOPE, "lab", "read")
    assert decision.token is not None


async def test_a_token_that_does_not_verify_has_no_identity_but_its_issuer(make_gate: MakeGate, mint: Mint) -> None:
    decision = await make_gate().decide(ask(mint(exp=1)))

    assert (decision.reason, decision.issuer, decision.token) == (Reason.EXPIRED, "lab", None)


@pytest.mark.parametrize("changed", [{"tokens": frozenset({"token-1"})}, {"bare_clients": frozenset({"etl"})}])
async def test_revocation_is_looked_at_for_cached_tokens_too(
    make_gate: MakeGate, mint: Mint, changed: dict[str, Any]
) -> None:
    gate = make_gate(revoked=Revoked(**changed))
    token = mint()
    reasons = [(await gate.decide(ask(token))).reason for _ in range(2)]

    assert reasons == [Reason.REVOKED] * 2


async def test_exp_is_looked_at_for_cached_tokens_too(make_gate: MakeGate, mint: Mint, clock: Clock) -> None:
    gate, token = make_gate(), mint(exp=clock.now + 60)
    await gate.decide(ask(token))
    clock.now += 71

    assert (await gate.decide(ask(token))).reason is Reason.EXPIRED


async def test_one_token_is_decided_about_anew_for_each_policy(make_gate: MakeGate, mint: Mint) -> None:
    gate, token = make_gate(), mint()
    asked = [ask(token, "default"), ask(token, "role"), ask(token, "api"), ask(token, "api", "/other")]

    assert [(await gate.decide(request)).reason for request in asked] == [
        Reason.OK, Reason.NO_ROLE, Reason.OK, Reason.NO_MATCHING_RULE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        pytest.param({"policy": "nowhere"}, Reason.UNKNOWN_POLICY, id="policy"),
        pytest.param({"query": b"x=1"}, Reason.BAD_AUTH_REQUEST, id="query"),
        pytest.param({"repeated": frozenset({"x-original-url"})}, Reason.BAD_AUTH_REQUEST, id="two URLs"),
        pytest.param({"repeated": frozenset({"x-original-method"})}, Reason.BAD_AUTH_REQUEST, id="two methods"),
        pytest.param(
            {"repeated": frozenset({"x-original-url", "authorization"})}, Reason.BAD_AUTH_REQUEST, id="two of both"
        ),
        pytest.param({"policy": "api", "url": b""}, Reason.BAD_AUTH_REQUEST, id="no URL, with rules"),
        pytest.param({"policy": "api", "method": ""}, Reason.BAD_AUTH_REQUEST, id="no method, with rules"),
        pytest.param({"policy": "api", "url": b"/db/a"}, Reason.BAD_AUTH_REQUEST, id="a path for a URL, with rules"),
        pytest.param({"url": b"", "method": ""}, Reason.MISSING_TOKEN, id="neither, without rules"),
        pytest.param({"repeated": frozenset({"authorization"})}, Reason.MISSING_TOKEN, id="no token"),
    ],
)
async def test_the_auth_request_is_looked_at_before_the_token(
    make_gate: MakeGate, changes: dict[str, Any], wanted: Reason
) -> None:
    assert (await make_gate().decide(ask(None, **changes))).reason is wanted


async def test_two_authorization_headers_are_a_malformed_token(make_gate: MakeGate, mint: Mint) -> None:
    request = ask(mint(), repeated=frozenset({"authorization"}))

    assert (await make_gate().decide(request)).reason is Reason.MALFORMED_TOKEN


async def test_a_token_is_looked_at_before_the_path(make_gate: MakeGate, mint: Mint) -> None:
    assert (await make_gate().decide(ask(mint(exp=1), "api", "/a%2fb"))).reason is Reason.EXPIRED


async def test_an_answer_is_bounded_by_what_nginx_takes(make_gate: MakeGate, mint: Mint) -> None:
    """The whole header part at its largest counts, the server's own lines too; the bound itself still passes."""
    token = mint(scope=" ".join(f"scope{number:04}" for number in range(100)))
    gate = make_gate(ttl=3600)
    answer = gate.render(await gate.decide(ask(token)))
    own = b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n\r\n"
    size = len(own) + wire_size(answer.headers)

    assert (await make_gate(ttl=3600, max_header_bytes=size).decide(ask(token))).reason is Reason.OK
    assert (await make_gate(ttl=3600, max_header_bytes=size - 1).decide(ask(token))).reason is Reason.HEADERS_TOO_LARGE


async def test_too_large_headers_come_after_every_other_check(make_gate: MakeGate, mint: Mint) -> None:
    gate = make_gate(max_header_bytes=10)

    assert (await gate.decide(ask(mint(), "role"))).reason is Reason.NO_ROLE


async def test_a_defect_of_ours_is_a_503_and_its_log_quotes_nothing(
    make_gate: MakeGate, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def verify(self, token: bytes) -> None:
            raise RuntimeError(f"cannot verify {token!r}")

    token = mint()
    with caplog.at_level(logging.DEBUG):
        decision = await make_gate(verifier=Broken()).decide(ask(token))

    assert decision.reason is Reason.KEYS_UNAVAILABLE
    assert token.decode() not in caplog.text + decision.description
    assert "RuntimeError" in caplog.text


# --- the endpoint ---

Sent = list[dict[str, Any]]


async def call(endpoint: AuthEndpoint, path: str, *headers: tuple[str, str], query: str = "") -> Sent:
    sent: Sent = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"path": path, "headers": pairs, "query_string": query.encode(), "client": None}
    await endpoint(scope, None, send)
    return sent


@pytest.mark.parametrize(
    ("path", "policy"),
    [("/verify", "default"), ("/verify/default", "default"), ("/verify/api", "api")],
)
async def test_the_policy_is_named_in_the_path(make_gate: MakeGate, path: str, policy: str) -> None:
    seen: list[tuple[AuthRequest, Decision, float]] = []
    await call(AuthEndpoint(make_gate(), (seen.extend,)), path)

    found = seen[0][1].policy
    assert found is not None
    assert found.name == policy


@pytest.mark.parametrize("path", ["/verify/x", "/verify/api/x", "/verify//api", "/verify/API"])
async def test_a_path_that_names_no_policy_is_an_unknown_policy(make_gate: MakeGate, path: str) -> None:
    start, _ = await call(AuthEndpoint(make_gate(), ()), path)

    assert (start["status"], dict(start["headers"])[b"x-m2m-reason"]) == (403, b"unknown_policy")


async def test_a_subrequest_is_answered(make_gate: MakeGate, mint: Mint) -> None:
    start, body = await call(AuthEndpoint(make_gate(), ()), "/verify", ("Authorization", "Bearer " + mint().decode()))

    assert (start["type"], start["status"], body["type"], body["body"]) == (
        "http.response.start", 200, "http.response.body", b"",
    )  # fmt: skip
    assert dict(start["headers"])[b"x-m2m-client-id"] == b"etl"


async def test_forged_identity_headers_do_not_reach_the_answer(make_gate: MakeGate, mint: Mint) -> None:
    token = ("Authorization", "Bearer " + mint().decode())
    start, _ = await call(AuthEndpoint(make_gate(), ()), "/verify", token, ("X-M2M-Role", "admin"))

    assert dict(start["headers"])[b"x-m2m-role"] == b""


async def test_each_decision_is_observed_once_with_its_duration(make_gate: MakeGate) -> None:
    seen: list[tuple[AuthRequest, Decision, float]] = []
    await call(AuthEndpoint(make_gate(), (seen.extend,)), "/verify/report", query="scope=a")

    assert len(seen) == 1
    request, decision, seconds = seen[0]
    assert (request.policy, request.query, decision.reason) == ("report", b"scope=a", Reason.MISSING_TOKEN)
    assert 0 < seconds < 1


async def test_report_mode_answers_200_and_observes_the_real_decision(make_gate: MakeGate) -> None:
    seen: list[tuple[AuthRequest, Decision, float]] = []
    start, _ = await call(AuthEndpoint(make_gate(), (seen.extend,)), "/verify/report")

    assert (start["status"], seen[0][1].reason) == (200, Reason.MISSING_TOKEN)


@pytest.mark.parametrize("header", [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), None])
async def test_the_connection_is_closed_where_a_body_may_follow(
    make_gate: MakeGate, header: tuple[str, str] | None
) -> None:
    start, _ = await call(AuthEndpoint(make_gate(), ()), "/verify", *([header] if header else []))

    assert ((b"connection", b"close") in start["headers"]) is (header is not None)


async def test_the_gate_can_be_replaced_between_requests(make_gate: MakeGate, mint: Mint) -> None:
    endpoint = AuthEndpoint(make_gate(), ())
    endpoint.gate = make_gate(revoked=Revoked(bare_clients=frozenset({"etl"})))
    start, _ = await call(endpoint, "/verify", ("Authorization", "Bearer " + mint(scope=ABSENT).decode()))

    assert start["status"] == 401
