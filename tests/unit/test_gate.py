"""The decision about one request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.support import NOW, Clock, SigningKey, by_reason, make_issuer, make_verifier, show
from verifier.decision import Decision
from verifier.gate import Gate
from verifier.policy.clients import ClientIds, Revoked
from verifier.policy.paths import PathPattern
from verifier.policy.policies import Policies, Policy, Rule
from verifier.policy.resources import Resource
from verifier.reasons import Reason
from verifier.request import AuthRequest
from verifier.tokens.cache import CachedVerifier
from verifier.tokens.proofs import Proofs, SeenProofs

Mint = Callable[..., bytes]
MakeGate = Callable[..., Gate]
Decide = Callable[..., Decision]

URL = "https://api.example/db/a"
MCP, OTHER = "https://api.example/mcp", "https://api.example/other"
READ = (("read",),)
RULES = (Rule(PathPattern("/db/a"), needs=(("write", "admin"),)), Rule(PathPattern("/db/*")))
POLICIES = [
    Policy("default"),
    Policy("api", needs=READ, rules=(Rule(PathPattern("/db/**")),)),
    Policy("report", needs=(("admin",),), report=True),
    Policy("role", role_required=True),
    Policy("mcp", needs=READ, resource=Resource(MCP, (), ()), scope_challenge=401),
    Policy("rules", needs=READ, resource=Resource(MCP, (), ()), rules=RULES),
    Policy("open", needs=READ, rules=(Rule(PathPattern("/health"), needs_token=False),), report=True),
]


@pytest.fixture
def make_gate(signer: SigningKey, clock: Clock) -> MakeGate:
    def make(*, max_identity_bytes: int = 3000, verifier: Any = None) -> Gate:
        issuer = make_issuer([signer.public()], audience=frozenset({"api", MCP, OTHER}))
        verifier = verifier or make_verifier(issuer, resources=frozenset({MCP, OTHER}))
        return Gate(
            CachedVerifier(verifier, size=10, ttl=300, clock=clock, max_identity_bytes=max_identity_bytes),
            Policies({policy.name: policy for policy in POLICIES}, ClientIds(("lab",))),
            Revoked(clients=frozenset({"gone"}), tokens=frozenset({"gone"})),
            max_identity_bytes,
            Proofs({}, SeenProofs(), clock=clock, leeway=10),
        )

    return make


def ask(token: bytes | None = None, policy: str = "default", url: str = URL, **changes: Any) -> AuthRequest:
    authorization = None if token is None else b"Bearer " + token
    return replace(AuthRequest(policy, b"", authorization, "GET", url.encode()), **changes)


@pytest.fixture
def decide(make_gate: MakeGate) -> Decide:
    """Ask one gate."""
    gate = make_gate()
    return lambda *asked, **changes: gate.decide(ask(*asked, **changes))


def test_a_valid_token_is_allowed_and_then_cached(decide: Decide, mint: Mint) -> None:
    first, second = decide(mint()), decide(mint())

    assert first.token is not None
    assert first.token.principal.client_id == "etl"
    assert first == Decision(Reason.OK, "default", False, "lab", first.token, False)
    assert second == replace(first, cached=True)


@pytest.mark.parametrize(
    ("token", "changes", "expected", "cached"),
    [
        (None, {}, Reason.MISSING_TOKEN, None),
        (b"a.b.c", {"policy": "nowhere"}, Reason.UNKNOWN_POLICY, None),
        (b"a.b.c", {"repeated": {"authorization"}}, Reason.MALFORMED_TOKEN, None),
        (b"a.b.c", {}, Reason.MALFORMED_TOKEN, False),
    ],
)
def test_a_refusal_before_the_cache_was_asked_has_no_result_of_it(
    decide: Decide, token: bytes | None, changes: dict[str, Any], expected: Reason, cached: bool | None
) -> None:
    decision = decide(token, **changes)

    assert (decision.reason, decision.cached) == (expected, cached)


def test_a_valid_token_is_denied_with_its_identity(decide: Decide, mint: Mint) -> None:
    decision = decide(mint(scope="write"), "api")

    assert (decision.reason, decision.issuer, decision.scope) == (Reason.INSUFFICIENT_SCOPE, "lab", "read")
    assert decision.token is not None


def test_a_token_that_does_not_verify_has_no_identity_but_its_issuer(decide: Decide, mint: Mint) -> None:
    decision = decide(mint(exp=1))

    assert (decision.reason, decision.issuer, decision.token) == (Reason.EXPIRED, "lab", None)


@pytest.mark.parametrize("changes", [{"jti": "gone"}, {"client_id": "gone", "sub": "gone"}], ids=str)
def test_revocation_is_checked_for_cached_tokens_too(decide: Decide, mint: Mint, changes: dict[str, str]) -> None:
    token = mint(**changes)

    assert [decide(token).reason for _ in range(2)] == [Reason.REVOKED] * 2


def test_a_cached_token_is_decided_about_for_each_policy(decide: Decide, mint: Mint) -> None:
    token = mint()
    asked = [("default", URL), ("role", URL), ("api", URL), ("api", OTHER)]

    assert [decide(token, *one).reason for one in asked] == [
        Reason.OK, Reason.NO_ROLE, Reason.OK, Reason.NO_MATCHING_RULE,
    ]  # fmt: skip


def test_a_refused_auth_url_names_the_policy_that_it_is_about(decide: Decide) -> None:
    decision = decide(None, "report", query=b"x=1")

    assert (decision.policy, decision.report) == ("report", True)


METADATA = "https://api.example/.well-known/oauth-protected-resource/mcp"


@pytest.mark.parametrize(
    ("policy", "query", "challenge"),
    [
        pytest.param("mcp", b"", ("read", METADATA), id="a resource"),
        pytest.param("mcp", b"scope=write", ("read write", METADATA), id="a resource, narrowed"),
        pytest.param("mcp", b"x=1", ("read", METADATA), id="a resource and a wrong query"),
        pytest.param("rules", b"", ("read write", METADATA), id="a resource, and a rule for the request"),
        pytest.param("api", b"", ("", ""), id="no resource"),
        pytest.param("nowhere", b"", ("", ""), id="no policy"),
    ],
)
def test_a_refusal_names_scope_and_document_where_the_policy_has_a_resource(
    decide: Decide, policy: str, query: bytes, challenge: tuple[str, str]
) -> None:
    decision = decide(None, policy, query=query)

    assert (decision.scope, decision.resource_metadata) == challenge


@pytest.mark.parametrize("url", ["https://h/db/b", "https://h/nowhere", "https://h/db/%2f", "https://h/db/x/../a", ""])
def test_a_refusal_names_the_policys_scopes_where_no_single_rule_adds_to_them(decide: Decide, url: str) -> None:
    assert decide(None, "rules", url).scope == "read"


@pytest.mark.parametrize(
    ("audience", "policy", "expected"),
    [
        (MCP, "mcp", Reason.OK), ([OTHER, MCP], "mcp", Reason.OK), ("api", "mcp", Reason.OK),
        (OTHER, "mcp", Reason.WRONG_AUDIENCE), (["api", OTHER], "mcp", Reason.WRONG_AUDIENCE),
        (OTHER, "api", Reason.OK),
    ],
)  # fmt: skip
def test_a_token_for_other_resources_is_refused_where_the_policy_has_one_cached_or_not(
    decide: Decide, mint: Mint, audience: Any, policy: str, expected: Reason
) -> None:
    """RFC 8707. An audience that is no policy's resource is the issuer's own affair."""
    token = mint(aud=audience)

    assert [decide(token, policy).reason for _ in range(2)] == [expected] * 2


HEALTH = "https://api.example/health"


@pytest.mark.parametrize("token", [None, b"a.b.c", "valid"])
def test_a_rule_without_a_token_allows_any_token_without_identity(decide: Decide, mint: Mint, token: Any) -> None:
    assert decide(mint() if token == "valid" else token, "open", HEALTH) == Decision(Reason.OK, "open", report=True)


AGAIN: dict[Reason, list[dict[str, Any]]] = {
    Reason.MISSING_TOKEN: [{"query": b"scope=read"}, {"method_override": True}, {"url": f"{HEALTH}/../x"}],
    Reason.BAD_AUTH_REQUEST: [{"query": b"x=1"}, {"url": ""}, {"repeated": {"x-original-method"}}],
}


@pytest.mark.parametrize(("changes", "expected"), by_reason(AGAIN), ids=show)
def test_a_token_becomes_necessary_again(decide: Decide, changes: dict[str, Any], expected: Reason) -> None:
    assert decide(None, "open", **{"url": HEALTH, **changes}).reason is expected


@pytest.mark.parametrize(("spare", "expected"), [(0, Reason.OK), (-1, Reason.HEADERS_TOO_LARGE)])
def test_the_identity_headers_are_bounded(make_gate: MakeGate, mint: Mint, spare: int, expected: Reason) -> None:
    token = mint(scope=" ".join(f"scope{number:04}" for number in range(100)))
    allowed = make_gate().decide(ask(token)).token
    assert allowed is not None
    size = len(allowed.principal.header_lines)

    assert make_gate(max_identity_bytes=size + spare).decide(ask(token)).reason is expected


def test_the_size_of_headers_is_the_last_check(make_gate: MakeGate, mint: Mint) -> None:
    assert make_gate(max_identity_bytes=10).decide(ask(mint(), "role")).reason is Reason.NO_ROLE


# --- tokens that are bound to their sender ---


@pytest.fixture
def decide_dpop(decide: Decide) -> Decide:
    """Ask with the scheme DPoP and these proofs."""
    return lambda token, policy, *proofs, url=URL: decide(
        None, policy, url, authorization=b"DPoP " + token, proofs=proofs
    )


@pytest.mark.parametrize("policy", ["default", "report"])
def test_a_token_that_is_not_bound_to_a_key_does_not_come_with_the_scheme_dpop(
    decide_dpop: Decide, mint: Mint, policy: str
) -> None:
    """Cached or not. It identifies nobody, in report mode neither."""
    decisions = [decide_dpop(mint(), policy) for _ in range(2)]

    assert [(one.reason, one.issuer, one.token, one.cached) for one in decisions] == [
        (Reason.BAD_PROOF, "lab", None, False), (Reason.BAD_PROOF, "lab", None, True),
    ]  # fmt: skip


@pytest.mark.parametrize("policy", ["default", "report"])
def test_a_bound_token_identifies_nobody_without_a_new_proof_cached_or_not(
    decide_dpop: Decide, mint: Mint, ec_signer: SigningKey, policy: str
) -> None:
    token = mint(scope="admin", cnf={"jkt": ec_signer.jkt})

    for _ in range(2):
        proof = ec_signer.proof(token, URL, iat=NOW)
        decisions = [decide_dpop(token, policy, *proofs) for proofs in ((proof,), (proof,), ())]
        assert [(one.reason, one.token is not None) for one in decisions] == [
            (Reason.OK, True), (Reason.BAD_PROOF, False), (Reason.BAD_PROOF, False),
        ]  # fmt: skip


@pytest.mark.parametrize(("policy", "expected"), [("mcp", Reason.OK), ("default", Reason.BAD_PROOF)])
def test_a_proof_is_for_the_resources_scheme_and_authority_where_the_policy_has_one(
    decide_dpop: Decide, mint: Mint, ec_signer: SigningKey, policy: str, expected: Reason
) -> None:
    token = mint(cnf={"jkt": ec_signer.jkt})
    proof = ec_signer.proof(token, MCP, iat=NOW)

    assert decide_dpop(token, policy, proof, url="http://10.0.0.7/mcp?y").reason is expected


@pytest.mark.parametrize(
    ("jti", "policy", "expected"),
    [("gone", "default", Reason.REVOKED), ("x", "report", Reason.INSUFFICIENT_SCOPE)],
)
def test_a_proof_is_checked_before_revocation_and_counts_as_used_whatever_is_decided(
    decide_dpop: Decide, mint: Mint, ec_signer: SigningKey, jti: str, policy: str, expected: Reason
) -> None:
    token = mint(jti=jti, cnf={"jkt": ec_signer.jkt})
    proof = ec_signer.proof(token, URL, iat=NOW)

    reasons = [decide_dpop(token, policy, *proofs).reason for proofs in ((), (proof,), (proof,))]
    assert reasons == [Reason.BAD_PROOF, expected, Reason.BAD_PROOF]


# --- defects ---


def test_a_defect_in_the_path_of_a_refused_request_does_not_hide_the_refusal(
    decide: Decide, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Policy, "rule_for", lambda *_: 1 / 0)
    decision = decide(None, "rules")

    assert (decision.reason, decision.scope) == (Reason.MISSING_TOKEN, "")
    assert "defect: ZeroDivisionError" in caplog.text


class Broken:
    """A verifier with a defect, whose message quotes the token."""

    def verify(self, token: bytes) -> None:
        raise RuntimeError(f"cannot verify {token!r}")


def test_a_defect_is_an_internal_error_whose_log_line_names_the_innermost_frame_without_the_token(
    make_gate: MakeGate, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    token = mint()
    with caplog.at_level(logging.DEBUG):
        decision = make_gate(verifier=Broken()).decide(ask(token))
    line = Broken.verify.__code__.co_firstlineno + 1

    assert (decision.reason, decision.policy) == (Reason.INTERNAL_ERROR, "default")
    assert f"defect: RuntimeError at {__file__}:{line}" in caplog.text
    assert token.decode() not in caplog.text + decision.description
