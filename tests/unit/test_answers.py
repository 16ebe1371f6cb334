"""A decision as an HTTP answer, header by header."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.unit.support import NOW, Clock, make_principal, make_token
from verifier.decision import Decision
from verifier.reasons import Reason
from verifier.identity import wire_size
from verifier.policy.policies import Policy
from verifier.policy.resources import Resource
from verifier.proxies.answers import Answer, Answers

POLICY = Policy("api")
REPORT = Policy("api", report=True)
RESOURCE = Policy(
    "mcp",
    needs=(("read",),),
    resource=Resource("https://api.example/mcp", ("https://issuer.example",), ()),
    challenge_prefix="https://api/",
)
NOBODY = {"x-m2m-client-id": "", "x-m2m-scope": "", "x-m2m-role": "", "x-m2m-issuer": ""}
SOMEBODY = {"x-m2m-client-id": "etl", "x-m2m-scope": "read", "x-m2m-role": "arn", "x-m2m-issuer": "lab"}
TOKEN = make_token(make_principal(role="arn"))
DENIALS = [reason for reason in Reason if reason is not Reason.OK]


def render(
    decision: Decision, *, mapped: tuple[str, ...] = (), ttl: int = 0, now: float = NOW, max_header_bytes: int = 3584
) -> Answer:
    return Answers(mapped, ttl, Clock(now), max_header_bytes).render(decision)


def headers(answer: Answer) -> dict[str, str]:
    """By name, in lower case; each comes once."""
    made = {name.decode(): value.decode() for name, value in answer.headers}
    assert len(made) == len(answer.headers)
    return made


def denied(reason: Reason, policy: Policy | None = POLICY, **changes: Any) -> Answer:
    given = {"description": "it says why", "scope": "read write" if reason is Reason.INSUFFICIENT_SCOPE else ""}
    return render(Decision(reason, policy, **(given | changes)))


# --- allowed ---


def test_an_allowed_request_carries_identity_and_must_not_be_kept() -> None:
    answer = render(Decision(Reason.OK, POLICY, "lab", TOKEN))

    assert (answer.status, answer.body) == (200, b"")
    assert headers(answer) == {**SOMEBODY, "cache-control": "no-store", "content-length": "0"}


@pytest.mark.parametrize(
    ("ttl", "seconds_left", "cache_control"),
    [
        (0, 3600, "no-store"),
        (60, 3600, "max-age=60"),
        (60, 60, "max-age=60"),
        (60, 59.9, "max-age=59"),
        (60, 1, "max-age=1"),
        (60, 0.9, "no-store"),
        (60, -5, "no-store"),
    ],
)
def test_an_allowed_request_may_be_kept_as_long_as_configured_and_never_beyond_exp(
    ttl: int, seconds_left: float, cache_control: str
) -> None:
    answer = render(Decision(Reason.OK, POLICY, "lab", make_token(exp=NOW + seconds_left)), ttl=ttl)

    assert headers(answer)["cache-control"] == cache_control


# --- denied ---


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_has_its_status(reason: Reason) -> None:
    assert denied(reason).status == reason.status


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_carries_every_identity_header_empty(reason: Reason) -> None:
    answer = render(Decision(reason, POLICY, "lab", TOKEN, "no"), mapped=("X-Tenant",))

    assert headers(answer).items() >= (NOBODY | {"x-tenant": ""}).items()


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_carries_its_reason(reason: Reason) -> None:
    assert headers(denied(reason))["x-m2m-reason"] == reason


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_must_not_be_kept(reason: Reason) -> None:
    answer = render(Decision(reason, POLICY, "lab", TOKEN, "no"), ttl=3600)

    assert headers(answer)["cache-control"] == "no-store"


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_has_a_json_body(reason: Reason) -> None:
    answer = denied(reason)
    body = json.loads(answer.body)

    assert set(body) == {"error", "error_description", "reason"}
    assert (body["error_description"], body["reason"]) == ("it says why", reason)
    assert headers(answer)["content-type"] == "application/json"
    assert headers(answer)["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (Reason.EXPIRED, "invalid_token"),
        (Reason.REVOKED, "invalid_token"),
        (Reason.INSUFFICIENT_SCOPE, "insufficient_scope"),
        (Reason.BAD_AUTH_REQUEST, "invalid_request"),
    ],
)
def test_the_bodys_error_is_rfc_6750s_word(reason: Reason, error: str) -> None:
    assert json.loads(denied(reason).body)["error"] == error


@pytest.mark.parametrize("reason", DENIALS)
def test_retry_after_comes_with_503_alone(reason: Reason) -> None:
    assert ("retry-after" in headers(denied(reason))) == (reason.status == 503)


def test_retry_after_is_a_number_of_seconds() -> None:
    assert int(headers(denied(Reason.KEYS_UNAVAILABLE))["retry-after"]) > 0


# --- challenges ---


def challenge(answer: Answer) -> dict[str, str] | None:
    """The parameters of the one Bearer challenge, None where there is none."""
    value = headers(answer).get("www-authenticate")
    if value is None:
        return None
    assert re.fullmatch(r'Bearer [a-z_]+="[^"\\]*"(, [a-z_]+="[^"\\]*")*', value)
    return dict(re.findall(r'([a-z_]+)="([^"]*)"', value))


def test_without_a_token_the_challenge_names_no_error() -> None:
    """RFC 6750 section 3.1."""
    assert challenge(denied(Reason.MISSING_TOKEN)) == {"realm": "api"}


@pytest.mark.parametrize("reason", [r for r in DENIALS if r.status == 401 and r is not Reason.MISSING_TOKEN])
def test_a_token_that_is_not_valid_is_challenged_with_invalid_token(reason: Reason) -> None:
    told = challenge(denied(reason))

    assert told == {"realm": "api", "error": "invalid_token", "error_description": "it says why"}


def test_too_little_scope_is_challenged_with_the_scope_that_is_needed() -> None:
    told = challenge(denied(Reason.INSUFFICIENT_SCOPE))

    assert told is not None
    assert (told["error"], told["scope"]) == ("insufficient_scope", "read write")


@pytest.mark.parametrize("reason", [r for r in DENIALS if r.status != 401 and r is not Reason.INSUFFICIENT_SCOPE])
def test_no_other_denial_is_challenged(reason: Reason) -> None:
    assert challenge(denied(reason, RESOURCE)) is None


@pytest.mark.parametrize("reason", [r for r in DENIALS if r.status == 401])
def test_a_policy_with_a_resource_points_to_its_document_and_scope(reason: Reason) -> None:
    told = challenge(denied(reason, RESOURCE)) or {}

    assert told["resource_metadata"] == "https://api.example/.well-known/oauth-protected-resource/mcp"
    assert told["scope"] == "https://api/read"


def test_too_little_scope_for_a_resource_names_what_this_request_needs() -> None:
    told = challenge(denied(Reason.INSUFFICIENT_SCOPE, RESOURCE)) or {}

    assert told["scope"] == "read write"
    assert "resource_metadata" in told


@pytest.mark.parametrize("reason", [Reason.MISSING_TOKEN, Reason.UNKNOWN_POLICY, Reason.EXPIRED])
def test_an_unknown_policy_has_an_answer_too(reason: Reason) -> None:
    answer = denied(reason, None)

    assert answer.status == reason.status
    assert "realm" in (challenge(answer) or {"realm": ""})


@pytest.mark.parametrize("description", ['say "no"', "back\\slash", "line\r\nX-Forged: 1", "é", "\x00"], ids=ascii)
def test_a_description_cannot_break_out_of_the_challenge(description: str) -> None:
    """RFC 6750 section 3 says what it may hold."""
    told = challenge(denied(Reason.EXPIRED, description=description)) or {}

    assert re.fullmatch(r"[ !#-\[\]-~]+", told["error_description"])


# --- report mode ---


@pytest.mark.parametrize("reason", DENIALS)
def test_report_mode_answers_200_whatever_the_reason(reason: Reason) -> None:
    answer = denied(reason, REPORT)

    assert (answer.status, answer.body) == (200, b"")
    assert set(headers(answer)) == {*NOBODY, "cache-control", "content-length"}


@pytest.mark.parametrize("reason", [r for r in DENIALS if r.status == 401 or r is Reason.NOT_M2M])
def test_report_mode_names_nobody_without_a_verified_token(reason: Reason) -> None:
    assert headers(denied(reason, REPORT)).items() >= NOBODY.items()


@pytest.mark.parametrize("reason", [Reason.INSUFFICIENT_SCOPE, Reason.NO_MATCHING_RULE, Reason.CLIENT_NOT_ALLOWED])
def test_report_mode_names_who_has_a_verified_token(reason: Reason) -> None:
    assert headers(denied(reason, REPORT, token=TOKEN, issuer="lab")).items() >= SOMEBODY.items()


def test_report_mode_does_not_name_a_revoked_client() -> None:
    assert headers(denied(Reason.REVOKED, REPORT, token=TOKEN)).items() >= NOBODY.items()


@pytest.mark.parametrize("reason", [Reason.HEADERS_TOO_LARGE, Reason.INSUFFICIENT_SCOPE])
def test_report_mode_sends_no_identity_that_would_not_fit(reason: Reason) -> None:
    answer = render(Decision(reason, REPORT, "lab", TOKEN), max_header_bytes=150)

    assert headers(answer).items() >= NOBODY.items()


def test_report_mode_keeps_no_denial() -> None:
    answer = render(Decision(Reason.INSUFFICIENT_SCOPE, REPORT, "lab", TOKEN), ttl=60)

    assert headers(answer)["cache-control"] == "no-store"


def test_a_challenge_of_very_many_scopes_leaves_them_out_rather_than_pass_nginxs_buffer() -> None:
    answer = denied(Reason.INSUFFICIENT_SCOPE, scope=" ".join(f"scope-{n}" for n in range(500)))

    assert wire_size(answer.headers) < 3584
    assert b'error="insufficient_scope"' in dict(answer.headers)[b"www-authenticate"]
