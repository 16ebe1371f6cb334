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


def explain(config: Config, token: bytes, **options: Any) -> tuple[int, str]:
    """The exit status, and what is printed."""
    given = {"url": "https://api.example/db/a", "method": "GET", "policy": None, "auth_url": None, "json": False}
    out = io.StringIO()
    return run(config, argparse.Namespace(**(given | options)), token, out), out.getvalue()


def explained(config: Config, token: bytes, **options: Any) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The exit status, the JSON, and its steps: whether each passed, and what it examined."""
    status, text = explain(config, token, json=True, **options)
    found = json.loads(text)
    return status, found, {step["name"]: (step["passed"], step["detail"]) for step in found["steps"]}


@pytest.fixture
def token(signer: SigningKey) -> Token:
    """A token that is valid now, with changed claims."""

    def make(**changes: Any) -> bytes:
        now = int(time.time())
        return signer.sign(claims(**{"iat": now, "exp": now + 3600, **changes})).encode()

    return make


def test_every_reason_belongs_to_one_step_and_has_a_remedy() -> None:
    assert sorted(reason for reasons in STEPS.values() for reason in reasons) == sorted(set(Reason) - {Reason.OK})
    assert set(REMEDIES) == set(Reason)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((b"", ending) for ending in (b"", b"\n", b"\r\n", b"  \n")),
        *((pasted, b"") for pasted in (b"Bearer ", b"bearer  ", b"Authorization: Bearer ", b"authorization:bearer ")),
    ],
)
def test_an_allowed_token_passes_each_step_with_white_space_or_pasted_with_its_header(
    config: Config, token: Token, before: bytes, after: bytes
) -> None:
    status, text = explain(config, before + token() + after)

    assert (status, text.count("ok  "), "200 ok: allowed" in text) == (0, len(STEPS), True)


def test_a_step_shows_what_it_examined(config: Config, token: Token) -> None:
    given = token(iat=1_700_000_000, exp=4_000_000_000, jti="id1", aud=["api", "b"], scope="read")
    _, _, steps = explained(config, given, auth_url="/verify/api?issuer=lab")

    assert {name: detail for name, (_, detail) in steps.items() if detail} == {
        "auth request": "policy api, issuer=lab", "token": "three parts, well formed", "algorithm": "RS256",
        "issuer": '"https://issuer.example"', "key": "kid rsa", "M2M": "client etl",
        "times": "iat 2023-11-14 22:13:20Z, exp 2096-10-02 07:06:40Z", "audience": 'aud ["api", "b"]',
        "revocation": 'jti "id1"', "client": "client etl", "issuer allowed": "lab", "rule": "GET /db/a",
        "scope": "granted: read", "role": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "options", "step", "reason"),
    [
        (b"", {}, "token", "missing_token"),
        (b"abc", {}, "token", "malformed_token"),
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
def test_a_denial_names_its_step_reason_and_remedy_and_reaches_no_later_step(
    config: Config, token: Token, given: bytes | dict[str, Any], options: dict[str, Any], step: str, reason: str
) -> None:
    status, found, steps = explained(config, given if isinstance(given, bytes) else token(**given), **options)

    assert (status, found["reason"], found["remedy"]) == (1, reason, REMEDIES[Reason(reason)])
    number = list(STEPS).index(step)
    assert [passed for passed, _ in steps.values()] == [True] * number + [False] + [None] * (len(STEPS) - number - 1)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("changes", [{}, {"exp": 1}, {"sub": "ann"}], ids=["allowed", "expired", "person"])
def test_no_part_of_the_token_is_printed(config: Config, token: Token, as_json: bool, changes: dict[str, Any]) -> None:
    given = token(**changes)
    _, text = explain(config, given, json=as_json)

    assert not any(part in text for part in given.decode().split("."))


def test_a_scope_challenge_is_shown_with_the_status_that_is_sent(config: Config, token: Token) -> None:
    assert "\n401 insufficient_scope: denied\n" in explain(config, token(), policy="mcp")[1]


@pytest.mark.parametrize("given", [b"", b"abc"], ids=["no token", "no valid token"])
def test_where_a_rule_needs_no_token_the_steps_of_the_token_say_so(config: Config, given: bytes) -> None:
    status, _, steps = explained(config, given, policy="api", method="OPTIONS")

    assert (status, steps.pop("rule")) == (0, (True, "OPTIONS /db/a"))
    assert (steps.pop("auth request")[0], steps.pop("headers")[0]) == (True, True)
    assert set(steps.values()) == {(None, "no token needed")}


@pytest.mark.parametrize("pasted", [b"DPoP ", b"dpop  ", b"Authorization: DPoP "])
@pytest.mark.parametrize("changes", [{}, {"cnf": {"jkt": "x"}}], ids=["not bound", "bound"])
def test_a_pasted_dpop_scheme_is_no_part_of_the_token_and_fails_only_for_its_proof(
    config: Config, token: Token, pasted: bytes, changes: dict[str, Any]
) -> None:
    status, found, steps = explained(config, pasted + token(**changes))

    assert (status, found["reason"], steps["proof"][0]) == (1, "bad_proof", False)
    assert steps["token"] == (True, "three parts, well formed")


@pytest.mark.parametrize("order", [1, -1])
def test_the_headers_that_prove_whose_the_token_is_stand_on_lines_of_their_own(
    config: Config, token: Token, ec_signer: SigningKey, order: int
) -> None:
    given = token(cnf={"jkt": ec_signer.jkt})
    now = int(time.time())
    proof = ec_signer.proof(given, "https://api.example/db/a", iat=now)
    lines = [b"Authorization: DPoP " + given, b"dpop: " + proof][::order]
    status, found, steps = explained(config, b"\r\n".join(lines))

    stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    detail = f"bound by jkt, proof for htm GET, htu https://api.example/db/a, iat {stamp}"
    assert (status, steps["proof"]) == (0, (True, detail))
    assert not any(part in str(found) for part in proof.decode().split("."))


def test_a_proof_that_does_not_fit_is_explained(config: Config, token: Token, ec_signer: SigningKey) -> None:
    given = token(cnf={"jkt": ec_signer.jkt})
    proof = ec_signer.proof(given, "https://\x1b[31m", htm={}, iat="x")
    status, text = explain(config, b"DPoP " + given + b"\nDPoP: " + proof)

    assert (status, "\x1b" in text) == (1, False)
    assert "because: the DPoP proof's htm is not the method of the request" in text
    assert explain(config, b"DPoP " + given + b"\nDPoP: x\nssl-client-cert: \xff")[0] == 1


def test_no_remedy_allows_people() -> None:
    assert not any("allow_users" in remedy for remedy in REMEDIES.values())


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
    _, found, _ = explained(config, token(**changes), **options)
    lines = text.partition("\n\n")[2].splitlines()

    assert (status, lines[-1]) == (1, last)
    assert lines[0] == f"403 {found['reason']}: denied"
    assert lines[1:3] == [f"because: {found['description']}", f"to change it: {found['remedy']}"]


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
def test_an_option_that_cannot_be_used_is_refused(config: Config, options: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        explain(config, b"", **options)


def test_without_keys_the_decision_is_indeterminate(make_config: MakeConfig, lab: dict[str, Any], token: Token) -> None:
    lab["issuers"][0]["jwks_url"] = "http://127.0.0.1:9/keys"  # the discard port: nothing listens there
    status, text = explain(make_config(lab), token())

    assert (status, "503 keys_unavailable: indeterminate" in text) == (2, True)
