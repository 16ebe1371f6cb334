"""Step by step, what happened to a token and what would have to change."""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support import SigningKey, claims, jwks
from verifier.config import Config, ConfigError
from verifier.reasons import Reason
from verifier.tools.explain import REMEDIES, STEPS, run

MakeConfig = Callable[..., Config]
Token = Callable[..., bytes]

POLICIES = {
    "api": {
        "scope": ["read"],
        "rules": [{"path": "/db/**", "methods": ["GET"]}, {"path": "/admin", "scope": ["admin"]}],
    },
    "report": {"scope": ["admin"], "mode": "report"},
}


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path, signer: SigningKey) -> Config:
    """One issuer with a key file: no network."""
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    issuer = {"name": "lab", "issuer": "https://issuer.example", "audience": "api", "jwks_file": "keys.json"}
    return make_config({"issuers": [issuer], "policies": POLICIES})


@pytest.fixture
def token(signer: SigningKey) -> Token:
    """A token that is valid now, with changed claims."""

    def make(**changes: Any) -> bytes:
        now = int(time.time())
        return signer.sign(claims(**{"iat": now, "exp": now + 3600, **changes})).encode()

    return make


def explained(config: Config, token: bytes, **changes: Any) -> tuple[int, str]:
    given = {"url": "https://api.example/db/a", "method": "GET", "policy": None, "auth_url": None, "json": False}
    out = io.StringIO()
    status = run(config, argparse.Namespace(**(given | changes)), token, out)
    return status, out.getvalue()


def steps(config: Config, token: bytes, **changes: Any) -> dict[str, bool | None]:
    told = json.loads(explained(config, token, json=True, **changes)[1])
    return {step["name"]: step["passed"] for step in told["steps"]}


def test_every_reason_belongs_to_one_step() -> None:
    assert sorted(reason for reasons in STEPS.values() for reason in reasons) == sorted(set(Reason) - {Reason.OK})


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Reason)


def test_an_allowed_token_passes_each_step(config: Config, token: Token) -> None:
    status, text = explained(config, token())

    assert status == 0
    assert text.count("ok  ") == len(STEPS)
    assert "200 ok: allowed" in text


def test_the_first_step_that_fails_is_the_last_that_is_told(config: Config, token: Token) -> None:
    found = steps(config, token(exp=1))
    names = list(found)

    assert found["times"] is False
    assert all(found[name] is True for name in names[: names.index("times")])
    assert all(found[name] is None for name in names[names.index("times") + 1 :])


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
    ],
)
def test_a_denial_names_its_step_and_reason(
    config: Config,
    token: Token,
    changes: dict[str, Any],
    options: dict[str, Any],
    step: str,
    reason: str,
) -> None:
    status, text = explained(config, token(**changes), json=True, **options)
    told = json.loads(text)

    assert (status, told["reason"]) == (1, reason)
    assert [one["name"] for one in told["steps"] if one["passed"] is False] == [step]
    assert told["remedy"] == REMEDIES[Reason(reason)]


def test_a_denial_says_what_would_have_to_change(config: Config, token: Token) -> None:
    _, text = explained(config, token(), policy="api", url="https://api.example/admin")

    assert f"to change it: {REMEDIES[Reason.INSUFFICIENT_SCOPE]}" in text
    assert "scope needed: read admin" in text


def test_an_auth_url_is_read_as_the_ingress_has_it(config: Config, token: Token) -> None:
    url = "http://verifier.auth.svc.cluster.local:8000/verify/api?scope=admin"
    _, text = explained(config, token(), auth_url=url)

    assert "insufficient_scope" in text


@pytest.mark.parametrize("url", ["/verfy/api", "/verifyapi", "api", "/x/verify/api", ""])
def test_an_auth_url_that_is_none_is_refused(config: Config, token: Token, url: str) -> None:
    with pytest.raises(ConfigError, match="--auth-url"):
        explained(config, token(), auth_url=url)


def test_a_policy_is_not_named_twice(config: Config, token: Token) -> None:
    with pytest.raises(ConfigError, match="--auth-url"):
        explained(config, token(), auth_url="/verify/api", policy="api")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"  \n"], ids=repr)
def test_a_line_break_after_the_token_does_not_matter(config: Config, token: Token, ending: bytes) -> None:
    assert explained(config, token() + ending)[0] == 0


@pytest.mark.parametrize(("given", "reason"), [(b"", "missing_token"), (b"abc", "malformed_token")])
def test_what_is_no_token_is_denied(config: Config, given: bytes, reason: str) -> None:
    status, text = explained(config, given)

    assert (status, reason in text) == (1, True)


def test_report_mode_is_told(config: Config, token: Token) -> None:
    status, text = explained(config, token(), policy="report")

    assert status == 1
    assert "report mode" in text


def test_without_keys_nobody_can_tell(make_config: MakeConfig, lab: dict[str, Any], token: Token) -> None:
    lab["issuers"][0]["jwks_url"] = "http://127.0.0.1:9/keys"  # discard: nobody listens there

    status, text = explained(make_config(lab), token())
    assert (status, "keys_unavailable" in text) == (2, True)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("changes", [{}, {"exp": 1}, {"sub": "ann"}], ids=["allowed", "expired", "person"])
def test_the_signature_is_never_shown(config: Config, token: Token, as_json: bool, changes: dict[str, Any]) -> None:
    given = token(**changes)
    _, text = explained(config, given, json=as_json)

    assert not any(part in text for part in given.decode().split("."))
