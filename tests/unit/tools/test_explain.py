"""The decision about one token step by step, and what would have to change."""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import SigningKey, claims
from verifier.config import Config, ConfigError
from verifier.reasons import Reason
from verifier.tools.explain import REMEDIES, STEPS, run

MakeConfig = Callable[..., Config]
Token = Callable[..., bytes]

POLICIES = {
    "api": {
        "scope": ["read"],
        "rules": [
            {"path": "/db/**", "methods": ["GET"]},
            {"path": "/admin", "scope": ["admin"]},
            {"path": "/**", "methods": ["OPTIONS"], "token": "none"},
        ],
    },
    "report": {"scope": ["admin"], "mode": "report"},
    "mcp": {"scope": ["admin"], "scope_challenge": 401},
}
AUTH_URL = "http://verify.auth.svc.cluster.local:8000/verify/api?scope=admin"  # a host with the name of the path


@pytest.fixture
def config(make_config: MakeConfig, offline: dict[str, Any]) -> Config:
    return make_config(offline | {"policies": POLICIES})


@pytest.fixture
def token(signer: SigningKey) -> Token:
    """A token that is valid now, with changed claims."""

    def make(**changes: Any) -> bytes:
        now = int(time.time())
        return signer.sign(claims(**{"iat": now, "exp": now + 3600, **changes})).encode()

    return make


def explain(config: Config, token: bytes, **options: Any) -> tuple[int, str]:
    given = {"url": "https://api.example/db/a", "method": "GET", "policy": None, "auth_url": None, "json": False}
    out = io.StringIO()
    return run(config, argparse.Namespace(**(given | options)), token, out), out.getvalue()


def test_every_reason_belongs_to_one_step_and_has_a_remedy() -> None:
    assert sorted(reason for reasons in STEPS.values() for reason in reasons) == sorted(set(Reason) - {Reason.OK})
    assert set(REMEDIES) == set(Reason)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "  \n"], ids=repr)
def test_an_allowed_token_passes_each_step_whatever_white_space_follows_it(
    config: Config, token: Token, ending: str
) -> None:
    status, text = explain(config, token() + ending.encode())

    assert (status, text.count("ok  "), "200 ok: allowed" in text) == (0, len(STEPS), True)


def test_a_step_shows_what_it_examined(config: Config, token: Token) -> None:
    times = {"iat": 1_700_000_000, "exp": 4_000_000_000}
    given = token(**times, jti="id1", aud=["api", "b"], scope="read")
    explained = json.loads(explain(config, given, json=True, auth_url="/verify/api?issuer=lab", method="GET")[1])

    assert {step["name"]: step["detail"] for step in explained["steps"] if step["detail"]} == {
        "auth request": "policy api, issuer=lab", "token": "three parts, well formed", "algorithm": "RS256",
        "issuer": '"https://issuer.example"', "key": "kid rsa", "M2M": "client etl",
        "times": "iat 2023-11-14 22:13:20Z, exp 2096-10-02 07:06:40Z", "audience": 'aud ["api", "b"]',
        "revocation": 'jti "id1"', "client": "client etl", "issuer allowed": "lab", "rule": "GET /db/a",
        "scope": "granted: read", "role": "none",
    }  # fmt: skip


def test_the_steps_after_the_first_that_fails_are_not_reached(config: Config, token: Token) -> None:
    found = [step["passed"] for step in json.loads(explain(config, token(exp=1), json=True)[1])["steps"]]
    failed = list(STEPS).index("times")

    assert found == [True] * failed + [False] + [None] * (len(STEPS) - failed - 1)


@pytest.mark.parametrize(
    ("changes", "options", "step", "reason"),
    [
        ({}, {"policy": "nowhere"}, "auth request", "unknown_policy"),
        ({"iss": "https://other.example"}, {}, "issuer", "unknown_issuer"),
        ({"exp": 1}, {}, "times", "expired"),
        ({"sub": "ann"}, {}, "M2M", "not_m2m"),
        ({"aud": "other"}, {}, "audience", "wrong_audience"),
        ({"cnf": {}}, {}, "proof", "bad_proof"),
        ({}, {"auth_url": "/verify?client=x"}, "client", "client_not_allowed"),
        ({}, {"policy": "api", "url": "https://h/nowhere"}, "rule", "no_matching_rule"),
        ({}, {"policy": "api", "method": "POST"}, "rule", "no_matching_rule"),
        ({}, {"policy": "api", "url": "https://h/db/%2f"}, "rule", "ambiguous_path"),
        ({}, {"policy": "api", "url": "https://h/admin"}, "scope", "insufficient_scope"),
        ({}, {"auth_url": AUTH_URL}, "scope", "insufficient_scope"),
    ],
)
def test_a_denial_names_its_step_reason_and_remedy(
    config: Config, token: Token, changes: dict[str, Any], options: dict[str, Any], step: str, reason: str
) -> None:
    status, text = explain(config, token(**changes), json=True, **options)
    found = json.loads(text)

    assert (status, found["reason"], found["remedy"]) == (1, reason, REMEDIES[Reason(reason)])
    assert [one["name"] for one in found["steps"] if one["passed"] is False] == [step]


def test_a_scope_challenge_is_shown_with_the_status_that_is_sent(config: Config, token: Token) -> None:
    assert "\n401 insufficient_scope: denied\n" in explain(config, token(), policy="mcp")[1]


@pytest.mark.parametrize("given", [b"", b"abc"], ids=["no token", "no valid token"])
def test_where_a_rule_needs_no_token_the_steps_of_the_token_say_so(config: Config, given: bytes) -> None:
    status, text = explain(config, given, policy="api", method="OPTIONS", json=True)
    steps = {one["name"]: (one["passed"], one["detail"]) for one in json.loads(text)["steps"]}

    assert (status, steps.pop("rule")) == (0, (True, "OPTIONS /db/a"))
    assert (steps.pop("auth request")[0], steps.pop("headers")[0]) == (True, True)
    assert set(steps.values()) == {(None, "no token needed")}


@pytest.mark.parametrize("pasted", [b"Bearer ", b"bearer  ", b"Authorization: Bearer ", b"authorization:bearer "])
def test_a_pasted_header_counts_as_its_token(config: Config, token: Token, pasted: bytes) -> None:
    status, text = explain(config, pasted + token())

    assert (status, text.count("ok  ")) == (0, len(STEPS))


@pytest.mark.parametrize("pasted", [b"DPoP ", b"dpop  ", b"Authorization: DPoP "])
@pytest.mark.parametrize("changes", [{}, {"cnf": {"jkt": "x"}}], ids=["not bound", "bound"])
def test_a_pasted_dpop_scheme_is_no_part_of_the_token_and_fails_only_for_its_proof(
    config: Config, token: Token, pasted: bytes, changes: dict[str, Any]
) -> None:
    status, text = explain(config, pasted + token(**changes), json=True)
    found = json.loads(text)

    assert (status, found["reason"]) == (1, "bad_proof")
    assert [one["name"] for one in found["steps"] if one["passed"] is False] == ["proof"]
    assert found["steps"][1]["detail"] == "three parts, well formed"


@pytest.mark.parametrize("order", [1, -1])
def test_the_headers_that_prove_whose_the_token_is_stand_on_lines_of_their_own(
    config: Config, token: Token, ec_signer: SigningKey, order: int
) -> None:
    given = token(cnf={"jkt": ec_signer.jkt})
    now = int(time.time())
    proof = ec_signer.proof(given, "https://api.example/db/a", iat=now)
    lines = [b"Authorization: DPoP " + given, b"dpop: " + proof][::order]
    status, text = explain(config, b"\r\n".join(lines), json=True)
    steps = {step["name"]: step for step in json.loads(text)["steps"]}

    assert (status, steps["proof"]["passed"]) == (0, True)
    stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    assert steps["proof"]["detail"] == (f"bound by jkt, proof for htm GET, htu https://api.example/db/a, iat {stamp}")
    assert not any(part in text for part in proof.decode().split("."))


def test_a_proof_that_does_not_fit_is_explained(config: Config, token: Token, ec_signer: SigningKey) -> None:
    given = token(cnf={"jkt": ec_signer.jkt})
    proof = ec_signer.proof(given, "https://\x1b[31m", htm={}, iat="x")
    status, text = explain(config, b"DPoP " + given + b"\nDPoP: " + proof)

    assert (status, "\x1b" in text) == (1, False)
    assert "because: the DPoP proof's htm is not the method of the request" in text
    assert explain(config, b"DPoP " + given + b"\nDPoP: x\nssl-client-cert: \xff")[0] == 1


def test_no_remedy_allows_people() -> None:
    assert not any("allow_users" in remedy for remedy in REMEDIES.values())


@pytest.mark.parametrize(("given", "reason"), [(b"", "missing_token"), (b"abc", "malformed_token")])
def test_what_is_no_token_is_denied(config: Config, given: bytes, reason: str) -> None:
    status, text = explain(config, given)

    assert (status, reason in text) == (1, True)


@pytest.mark.parametrize(
    ("changes", "options", "last"),
    [
        ({"sub": "ann"}, {}, "to change it: " + REMEDIES[Reason.NOT_M2M]),
        ({}, {"policy": "api", "url": "https://api.example/admin"}, "scope needed: read admin"),
        ({}, {"policy": "report"}, "the policy is in report mode: nginx receives 200 nevertheless"),
    ],
)
def test_a_denial_ends_with_the_decisions_own_description_and_what_would_change_it(
    config: Config, token: Token, changes: dict[str, Any], options: dict[str, str], last: str
) -> None:
    status, text = explain(config, token(**changes), **options)
    found = json.loads(explain(config, token(**changes), json=True, **options)[1])
    lines = text.partition("\n\n")[2].splitlines()

    assert (status, lines[-1]) == (1, last)
    assert lines[:3] == [
        f"403 {found['reason']}: denied", f"because: {found['description']}", f"to change it: {found['remedy']}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("auth_url", "status"),
    [("/forward-auth/api", 0), ("/forward-auth/api?scope=admin", 1), ("/ext-authz/api/db?scope=admin", 0),
     ("/ext-authz/none", 1)],
)  # fmt: skip
def test_an_auth_url_may_be_of_any_dialect(config: Config, token: Token, auth_url: str, status: int) -> None:
    assert explain(config, token(), auth_url=auth_url)[0] == status


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        *[({"auth_url": url}, "--auth-url: must be") for url in ("/verfy/api", "/verifyapi", "api", "/x/verify/a", "")],
        ({"auth_url": "/verify/api", "policy": "api"}, "--auth-url: already names the policy"),
        ({"url": "/db"}, "--url: must be the complete URL"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(
    config: Config, token: Token, options: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        explain(config, token(), **options)


def test_without_keys_the_decision_is_indeterminate(make_config: MakeConfig, lab: dict[str, Any], token: Token) -> None:
    lab["issuers"][0]["jwks_url"] = "http://127.0.0.1:9/keys"  # the discard port: nothing listens there

    status, text = explain(make_config(lab), token())
    assert (status, "503 keys_unavailable: indeterminate" in text) == (2, True)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("changes", [{}, {"exp": 1}, {"sub": "ann"}], ids=["allowed", "expired", "person"])
def test_no_part_of_the_token_is_printed(config: Config, token: Token, as_json: bool, changes: dict[str, Any]) -> None:
    given = token(**changes)
    _, text = explain(config, given, json=as_json)

    assert not any(part in text for part in given.decode().split("."))
