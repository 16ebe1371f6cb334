"""The configuration of issuers: what must fit together, and the rules that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.support import MakeConfig, Problems, issuer
from tests.unit.support import SigningKey, b64, jwks
from verifier.tokens.verify import IssuerRules

MakeRules = Callable[..., IssuerRules]
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Pool"
OTHER_COGNITO = "https://issuer-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Pool"
POOL = {"user_pool_id": "eu-west-1_Pool"}
URL = "https://issuer.example/keys"


def cognito(**changes: Any) -> dict[str, Any]:
    return {"issuer": None, "audience": None, "cognito": POOL, **changes}


@pytest.fixture(autouse=True)
def key_files(tmp_path: Path, signer: SigningKey, weak_signer: SigningKey) -> None:
    """Files in the configuration's folder."""
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    (tmp_path / "secret.json").write_bytes(jwks({"kty": "oct", "k": b64(b"k" * 32)}))
    (tmp_path / "weak.json").write_bytes(jwks(weak_signer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"name": None}, "name: is missing", id="no name"),
        pytest.param({"name": "a/b"}, "name: must be", id="a name with a slash"),
        pytest.param({"name": ""}, "name: must be", id="an empty name"),
        pytest.param({"issuer": None}, "issuer (a URL) or cognito", id="neither issuer nor cognito"),
        pytest.param({"cognito": POOL}, "issuer (a URL) or cognito", id="both"),
        pytest.param({"issuer": "http://issuer.example"}, "must be https", id="plain http"),
        pytest.param({"issuer": "issuer.example"}, "https URL", id="no URL"),
        pytest.param(cognito(cognito={"region": "us-east-1", **POOL}),
                     "cognito.region: is us-east-1, but the pool id names eu-west-1", id="a pool of another region"),
        pytest.param(cognito(cognito={"user_pool_id": "Pool"}), "must be a user pool id", id="a pool without region"),
        pytest.param({"issuer": COGNITO.replace("west", "east", 1)}, "no such pool", id="a URL with another region"),
        pytest.param({"jwks_url": "http://issuer.example/k"}, "must be https", id="keys over plain http"),
        pytest.param({"jwks_url": "https://u:p@issuer.example/k"}, "user or password", id="a password in a URL"),
        pytest.param({"jwks_file": "nowhere.json"}, "No such file", id="no such file"),
        pytest.param({"jwks_file": "weak.json"}, "no key in it can verify", id="no usable key"),
        pytest.param({"jwks_file": "keys.json", "jwks_url": URL}, "jwks_file: give jwks_url or", id="file and URL"),
        pytest.param({"jwks_file": "keys.json", "ca_file": "a"}, "ca_file: has no effect", id="ca_file and file"),
        pytest.param({"jwks_file": "keys.json", "bearer_token_file": "a"}, "file: has no effect", id="token and file"),
        pytest.param({"issuer": "", "jwks_url": URL}, "issuers[0].issuer", id="an empty issuer"),
        pytest.param({"audience": None}, "audience: is missing", id="no audience"),
        pytest.param({"audience": [""]}, "audience[0]", id="an empty audience"),
        pytest.param({"audience": ["api", "any"]}, "leave the others out", id="any beside another audience"),
        pytest.param({"typ": [""]}, "typ[0]: must be visible", id="an empty type"),
        pytest.param({"typ": ["a b"]}, "typ[0]: must be visible", id="a type with a space"),
        pytest.param({"typ": [5]}, "typ[0]: must be text", id="a type that is a number"),
        pytest.param({"typ": {"a": 1}}, "typ: must be a list", id="a type that is a mapping"),
        *(
            pytest.param({"client_certificate_header": name}, "must be a header name", id=f"a header named {name!r}")
            for name in ("ssl_client_cert", "a b", "a:", "")
        ),
        pytest.param({"algorithms": []}, "algorithms", id="no algorithm"),
        pytest.param({"algorithms": ["none"]}, "algorithms[0]", id="algorithm none"),
        pytest.param({"algorithms": ["rs256"]}, "algorithms[0]", id="algorithm in lower case"),
        pytest.param({"algorithms": ["HS256"]}, "need a jwks_file", id="a shared secret without a file"),
        pytest.param({"algorithms": ["RS256", "HS512"], "jwks_url": URL}, "need a jwks_file", id="published"),
        pytest.param({"profile": "google"}, "profile", id="unknown profile"),
        pytest.param({"profile": "github"}, "needs clients", id="github without clients"),
        pytest.param({"profile": "github", "clients": []}, "needs clients", id="github with an empty list"),
        pytest.param({"clients": ["a b"]}, "clients[0]", id="a client with a space"),
        pytest.param({"clients": ["repo:o/r:*"]}, "clients[0]: holds a *", id="a pattern of clients"),
        pytest.param({"client": ["a"]}, "unknown key: did you mean `clients`?", id="unknown key"),
        pytest.param({"claims": {"client": "cid"}}, "claims.client", id="unknown claim"),
        pytest.param(cognito(profile="okta"), "does not go with cognito", id="a pool with another profile"),
        pytest.param(cognito(profile="github", clients=["a"]), "does not go with cognito", id="a pool as github"),
    ],
)  # fmt: skip
def test_an_issuer_that_cannot_work_is_refused_with_one_error(
    problems: Problems, changes: dict[str, Any], message: str
) -> None:
    [problem] = problems(issuer(**changes))

    assert message in problem


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"issuer": "https://other.example"}, [f"issuers[{at}].name: another issuer has this name" for at in (0, 1)]),
        ({"name": "b"}, ["issuers[1]: issuer lab has the same issuer URL"]),
    ],
    ids=["name", "url"],
)
def test_two_issuers_share_neither_name_nor_url(
    problems: Problems, second: dict[str, Any], expected: list[str]
) -> None:
    found = problems({"issuers": issuer()["issuers"] + issuer(**second)["issuers"]})

    assert [problem.split(": ", 1)[1] for problem in found] == expected


LOOPBACK = "http://127.0.0.1:8081/pool"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"issuer": LOOPBACK}, {"urls": (LOOPBACK,), "key_set_url": None}, id="keys are discovered"),
        *(
            pytest.param({"issuer": name, key: value}, {"urls": (name,)}, id=f"any text as issuer with {key}: {name}")
            for name in ("kubernetes/serviceaccount", "http://issuer.example", "Zoë")
            for key, value in (("jwks_url", URL), ("jwks_file", "keys.json"))
        ),
        *(
            pytest.param(settings, {"urls": urls}, id=f"both forms of a Cognito issuer: {urls[0]}")
            for settings, urls in (
                (cognito(), (COGNITO, OTHER_COGNITO)),
                ({"profile": "cognito", "issuer": COGNITO}, (COGNITO, OTHER_COGNITO)),
                ({"profile": "cognito", "issuer": OTHER_COGNITO}, (OTHER_COGNITO, COGNITO)),
            )
        ),
        pytest.param(cognito(cognito={"region": "eu-west-1", **POOL}),
                     {"urls": (COGNITO, OTHER_COGNITO), "key_set_url": f"{COGNITO}/.well-known/jwks.json"}, id="AWS"),
        pytest.param(cognito(jwks_url=URL), {"key_set_url": URL}, id="a pool with keys elsewhere"),
        pytest.param(cognito(), {"audience": set(), "audience_optional": True}, id="a pool without audience"),
        pytest.param(cognito(audience=["a"]), {"audience": {"a"}, "audience_optional": True}, id="and with one"),
        pytest.param({"audience": "any"}, {"audience": None, "audience_optional": False}, id="any audience"),
        pytest.param({"audience": ["any"]}, {"audience": None}, id="any audience, as a list"),
        pytest.param({"audience": "api"}, {"audience": {"api"}, "audience_optional": False}, id="one audience"),
        pytest.param({"audience": []}, {"audience": set(), "audience_optional": True}, id="no audience"),
        pytest.param({}, {"clients": None, "typ": set(), "algorithms": {"RS256"}, "allow_users": False}, id="defaults"),
        pytest.param({"typ": "vnd+jwt"}, {"typ": {"vnd+jwt"}}, id="one further type"),
        pytest.param({"typ": ["application/VND+jwt", "other"]}, {"typ": {"vnd+jwt", "other"}}, id="further types"),
        pytest.param({"clients": []}, {"clients": set()}, id="no client is allowed"),
        pytest.param({"clients": ["repo:o/r", "lab/x"]}, {"clients": {"repo:o/r", "lab/x"}}, id="ids of the token"),
        pytest.param({"jwks_file": "secret.json", "algorithms": ["HS256"]}, {"algorithms": {"HS256"}}, id="a secret"),
    ],
)  # fmt: skip
def test_settings_become_rules(rules: MakeRules, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    made = rules(**changes)

    assert {name: getattr(made, name) for name in expected} == expected


def test_a_key_file_is_relative_to_the_configurations_folder(
    rules: MakeRules, tmp_path: Path, signer: SigningKey
) -> None:
    made = rules(jwks_file="keys.json")

    assert (made.jwks_file, made.jwks) == (tmp_path / "keys.json", jwks(signer))


@pytest.mark.parametrize("key", ["ca_file", "bearer_token_file"])
def test_a_file_for_fetching_keys_is_relative_and_may_be_missing_with_a_warning(
    rules: MakeRules, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    path = tmp_path / "file"
    assert getattr(rules(**{key: "file"}), key) == path
    path.write_text("")
    assert getattr(rules(**{key: "file"}), key) == path
    assert caplog.messages == [f"{key}: {path} is not there yet: keys cannot be fetched without it"]


@pytest.mark.parametrize(("own", "effective"), [(None, "https://api/"), ("", ""), ("x:", "x:")])
def test_an_issuers_scope_prefix_overrides_the_files(make_config: MakeConfig, own: str | None, effective: str) -> None:
    config = make_config({**issuer(scope_prefix=own), "scope_prefix": "https://api/"})

    assert config.issuers[0].scope_prefix == effective
