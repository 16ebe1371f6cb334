"""A decision as an HTTP answer, header by header."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.support import NOW, Clock, make_principal, make_token
from verifier.decision import Decision
from verifier.identity import Binding, header_lines
from verifier.keys.jwk import ASYMMETRIC_ALGORITHMS
from verifier.proxies.answers import MAX_DESCRIPTION, OTHER_HEADER_BYTES, Answer, Answers
from verifier.reasons import Reason

RESOURCE: dict[str, Any] = {
    "resource_metadata": "https://api.example/.well-known/oauth-protected-resource/mcp",
    "scope": "read",
}
NO_IDENTITY = {"x-m2m-client-id": "", "x-m2m-scope": "", "x-m2m-role": "", "x-m2m-issuer": ""}
IDENTITY = {"x-m2m-client-id": "etl", "x-m2m-scope": "read", "x-m2m-role": "arn", "x-m2m-issuer": "lab"}
TOKEN = make_token(make_principal(role="arn"))
DENIALS = [reason for reason in Reason if reason is not Reason.OK]
MAX_HEADER_BYTES = 3584


def make_answers(*mapped: str, ttl: int = 0, max_header_bytes: int = MAX_HEADER_BYTES) -> Answers:
    return Answers(mapped, ttl, Clock(), max_header_bytes)


def denied(reason: Reason, policy: str = "api", *, answers: Answers | None = None, **changes: Any) -> Answer:
    given = {"description": "it says why", "scope": "read write" if reason is Reason.INSUFFICIENT_SCOPE else ""}
    return (answers or make_answers()).render(Decision(reason, policy, **(given | changes)))


def headers(answer: Answer) -> dict[str, str]:
    """By name, in lower case; each comes once, and the head as it is sent says the same."""
    made = {name.decode(): value.decode() for name, value in answer.headers}
    assert len(made) == len(answer.headers)
    status_line, lines = answer.head.split(b"\r\n", 1)
    assert re.fullmatch(rb"HTTP/1\.1 %d [A-Z][A-Za-z ]+" % answer.status, status_line)
    assert sorted(lines.lower().split(b"\r\n")) == sorted(header_lines(answer.headers).lower().split(b"\r\n"))
    return made


# --- allowed ---


@pytest.mark.parametrize(
    ("ttl", "seconds_left", "cache_control"),
    [
        (0, 3600, "no-store"), (60, 3600, "max-age=60"), (60, 60, "max-age=60"), (60, 59.9, "max-age=59"),
        (60, 1, "max-age=1"), (60, 0.9, "no-store"), (60, -5, "no-store"),
    ],
)  # fmt: skip
def test_an_allowed_request_carries_identity_and_may_be_cached_as_configured_and_never_beyond_exp(
    ttl: int, seconds_left: float, cache_control: str
) -> None:
    token = make_token(TOKEN.principal, exp=NOW + seconds_left)
    answer = make_answers(ttl=ttl).render(Decision(Reason.OK, "api", False, "lab", token))

    assert (answer.status, answer.body) == (200, b"")
    assert headers(answer) == {**IDENTITY, "cache-control": cache_control, "content-length": "0"}


def test_the_answer_about_a_bound_token_must_not_be_cached() -> None:
    token = replace(TOKEN, binding=Binding(None, "x"))
    answer = make_answers(ttl=60).render(Decision(Reason.OK, "api", False, "lab", token))

    assert headers(answer) == {**IDENTITY, "cache-control": "no-store", "content-length": "0"}


def test_an_allowed_request_without_a_token_carries_no_identity_and_must_not_be_cached() -> None:
    """A rule that needs no token."""
    answer = make_answers("X-Tenant", ttl=60).render(Decision(Reason.OK, "api"))

    assert answer.status == 200
    assert headers(answer) == {**NO_IDENTITY, "x-tenant": "", "cache-control": "no-store", "content-length": "0"}


# --- denied ---

ERRORS = {
    Reason.MISSING_TOKEN: "missing_token", Reason.INSUFFICIENT_SCOPE: "insufficient_scope",
    Reason.BAD_AUTH_REQUEST: "invalid_request", Reason.INTERNAL_ERROR: "server_error",
    401: "invalid_token", 403: "access_denied",
    503: "temporarily_unavailable",
}  # fmt: skip


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_carries_reason_body_and_every_identity_header_empty(reason: Reason) -> None:
    answer = denied(reason, answers=make_answers("X-Tenant", ttl=3600), token=TOKEN, issuer="lab")
    made = headers(answer)
    retry_after = int(made.pop("retry-after", "0"))
    made.pop("www-authenticate", None)

    assert answer.status == reason.status
    assert made == {
        **NO_IDENTITY, "x-tenant": "", "x-m2m-reason": reason, "cache-control": "no-store",
        "content-type": "application/json", "content-length": str(len(answer.body)),
    }  # fmt: skip
    assert json.loads(answer.body) == {
        "error": ERRORS.get(reason, ERRORS.get(reason.status)), "error_description": "it says why", "reason": reason,
    }  # fmt: skip
    assert (retry_after > 0) == (reason.status == 503)


# --- challenges ---


def challenge(answer: Answer) -> dict[str, str] | None:
    """The parameters of the one Bearer challenge, None where there is none."""
    value = headers(answer).get("www-authenticate")
    if value is None:
        return None
    assert re.fullmatch(r'Bearer [a-z_]+="[^"\\]*"(, [a-z_]+="[^"\\]*")*', value)
    return dict(re.findall(r'([a-z_]+)="([^"]*)"', value))


@pytest.mark.parametrize("reason", DENIALS)
@pytest.mark.parametrize("resource", [{}, RESOURCE], ids=["no resource", "a resource"])
def test_the_challenge_is_that_of_rfc_6750_and_rfc_9728(reason: Reason, resource: dict[str, Any]) -> None:
    """Without a token it names no error (RFC 6750 section 3.1); a 403 or 503 for another cause has none."""
    error = {"error": "invalid_token", "error_description": "it says why"}
    if reason is Reason.MISSING_TOKEN:
        expected: dict[str, str] | None = {"realm": "api", **resource}
    elif reason.status == 401:
        expected = {"realm": "api", **error, **resource}
    elif reason is Reason.INSUFFICIENT_SCOPE:
        expected = {**error, "error": "insufficient_scope", "scope": "read write", **resource}
    else:
        expected = None

    assert challenge(denied(reason, **resource)) == expected


def test_a_scope_challenge_may_come_with_401_which_nginx_passes_on() -> None:
    answer = denied(Reason.INSUFFICIENT_SCOPE, scope_challenge=401)

    assert (answer.status, answer.head.split(b"\r\n")[0]) == (401, b"HTTP/1.1 401 Unauthorized")
    assert challenge(answer) == {
        "realm": "api", "error": "insufficient_scope", "error_description": "it says why", "scope": "read write",
    }  # fmt: skip
    assert json.loads(answer.body)["error"] == "insufficient_scope"


def test_the_challenge_for_a_dpop_proof_is_that_of_rfc_9449() -> None:
    answer = denied(Reason.BAD_PROOF, is_dpop=True, **RESOURCE)
    scheme, _, parameters = headers(answer)["www-authenticate"].partition(" ")

    assert (scheme, dict(re.findall(r'([a-z_]+)="([^"]*)"', parameters))) == ("DPoP", {
        "realm": "api", "error": "invalid_dpop_proof", "error_description": "it says why",
        "algs": " ".join(ASYMMETRIC_ALGORITHMS), **RESOURCE,
    })  # fmt: skip
    assert json.loads(answer.body)["error"] == "invalid_dpop_proof"


@pytest.mark.parametrize("reason", [Reason.MISSING_TOKEN, Reason.EXPIRED])
def test_without_a_policy_the_realm_is_a_general_one(reason: Reason) -> None:
    assert (challenge(denied(reason, "")) or {})["realm"] == "m2m"


@pytest.mark.parametrize(
    ("description", "written"),
    [
        ('say "no"', "say ?no?"), ("back\\slash", "back?slash"), ("a\r\nX: 1", "a??X: 1"), ("é", "?"), ("\x00", "?"),
        ("a" * (MAX_DESCRIPTION + 1), "a" * MAX_DESCRIPTION),
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_a_description_cannot_break_out_of_the_challenge_and_is_bounded(description: str, written: str) -> None:
    """RFC 6750 section 3 says what it may hold."""
    parameters = challenge(denied(Reason.EXPIRED, description=description)) or {}

    assert parameters["error_description"] == written


def test_a_challenge_over_half_of_the_headers_bytes_leaves_the_scopes_out() -> None:
    rest = len(headers(denied(Reason.INSUFFICIENT_SCOPE, scope="s"))["www-authenticate"]) - 1
    limit = (MAX_HEADER_BYTES - OTHER_HEADER_BYTES) // 2

    assert "scope" in (challenge(denied(Reason.INSUFFICIENT_SCOPE, scope="s" * (limit - rest))) or {})
    longer = denied(Reason.INSUFFICIENT_SCOPE, scope="s" * (limit - rest + 1))
    assert challenge(longer) == {"error": "insufficient_scope", "error_description": "it says why"}


# --- size ---


def test_the_largest_answer_with_identity_fills_the_proxys_buffer_and_no_more() -> None:
    """With what the server adds: date and connection."""
    answers = make_answers(ttl=3600)
    empty = len(make_principal("").header_lines)
    principal = make_principal("s" * (answers.max_identity_bytes - empty))
    answer = answers.render(Decision(Reason.OK, "api", False, "lab", make_token(principal)))
    added = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n\r\n"

    assert headers(answer)["cache-control"] == "max-age=3600"
    assert len(answer.head + added) == MAX_HEADER_BYTES


# --- report mode ---


@pytest.mark.parametrize("reason", Reason)
def test_report_mode_answers_200_not_to_be_cached_and_names_who_has_a_valid_token(reason: Reason) -> None:
    """A token that was revoked, or that was issued for another resource, is not valid here."""
    for token, identity in ((TOKEN, NO_IDENTITY if reason.status == 401 else IDENTITY), (None, NO_IDENTITY)):
        answer = denied(reason, answers=make_answers(ttl=60), report=True, token=token, issuer="lab")

        assert (answer.status, answer.body) == (200, b"")
        assert headers(answer) == {**identity, "cache-control": "no-store", "content-length": "0"}


@pytest.mark.parametrize(("spare", "identity"), [(0, IDENTITY), (-1, NO_IDENTITY)])
def test_report_mode_sends_no_identity_that_does_not_fit(spare: int, identity: dict[str, str]) -> None:
    size = len(TOKEN.principal.header_lines) + OTHER_HEADER_BYTES + spare
    answer = denied(
        Reason.HEADERS_TOO_LARGE, answers=make_answers(max_header_bytes=size), report=True, token=TOKEN, issuer="lab"
    )

    assert headers(answer).items() >= identity.items()
