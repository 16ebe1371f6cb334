"""docs/issuers.md: each configuration accepts the machine's token that the vendor documents, and no person's."""

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.minting import ABSENT, SigningKey, edited
from tests.ops.pages import DOCS
from verifier import cli
from verifier.tokens.profiles import PROFILES

SECTIONS = DOCS["issuers"].sections()
RULES = "Which tokens belong to a machine"
KEY = SigningKey.generate("RS256", "key-1")
Explain = Callable[[str, dict[str, Any]], tuple[str, str]]
TENANT, API = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"

# Section and number of its configuration, claims of a machine's token by the vendor's documentation, client id.
MACHINES: dict[str, tuple[str, int, dict[str, Any], str]] = {
    "Cognito": (
        "AWS Cognito", 0,
        {
            "sub": "7abc", "token_use": "access", "scope": "https://api.example.com/read", "auth_time": 0,
            "iss": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Example", "version": 2, "client_id": "7abc",
        },
        "7abc",
    ),
    "IAM": (
        "AWS IAM", 0,
        {
            "sub": "arn:aws:iam::123456789012:role/etl", "aud": "m2m-api",
            "https://sts.amazonaws.com/": {
                "aws_account": "123456789012", "source_region": "us-east-1", "org_id": "o-abc1234567",
                "principal_tags": {"team": "data"}, "request_tags": {"job-id": "1"},
            },
        },
        "arn:aws:iam::123456789012:role/etl",
    ),
    "Auth0": (
        "Auth0", 0,
        {
            "sub": "abc@clients", "aud": "https://api.example.com", "azp": "abc", "gty": "client-credentials",
            "scope": "read",
        },
        "abc",
    ),
    "Auth0, RFC 9068": (
        "Auth0", 0,
        {
            "typ": "at+jwt", "sub": "abc@clients", "aud": "https://api.example.com", "client_id": "abc",
            "scope": "read", "permissions": ["read"],
        },
        "abc",
    ),
    "Entra, version 2": (
        "Entra ID", 0,
        {
            "aud": API, "nbf": 0, "aio": "x", "azp": "abc", "azpacr": "1", "idtyp": "app", "oid": "o", "rh": "x",
            "roles": ["read"], "sub": "o", "tid": TENANT, "uti": "x", "ver": "2.0",
        },
        "abc",
    ),
    "Entra, version 1": (
        "Entra ID", 1,
        {
            "aud": f"api://{API}", "nbf": 0, "appid": "abc", "appidacr": "1", "idp": f"https://sts.windows.net/{TENANT}/",
            "oid": "o", "roles": ["read"], "sub": "o", "tid": TENANT, "uti": "x", "ver": "1.0",
        },
        "abc",
    ),
    "GitHub": (
        "GitHub Actions", 0,
        {
            "aud": "m2m-api", "sub": "repo:example/deploy:environment:production", "repository": "example/deploy",
            "environment": "production", "ref": "refs/heads/main", "repository_id": "5678", "workflow": "deploy",
            "actor": "octocat", "event_name": "push", "runner_environment": "github-hosted",
        },
        "example/deploy",
    ),
    "GitHub, since July 2026": (
        "GitHub Actions", 0,
        {
            "aud": "m2m-api", "sub": "repo:example@1234/deploy@5678:ref:refs/heads/main", "workflow": "deploy",
            "repository": "example/deploy", "repository_id": "5678", "repository_owner_id": "1234",
        },
        "example/deploy",
    ),
    "GitLab": (
        "GitLab CI", 0,
        {
            "aud": "m2m-api", "sub": "project_path:example/deploy:ref_type:branch:ref:main", "user_login": "ann",
            "project_path": "example/deploy", "namespace_path": "example", "project_id": "20", "ref": "main",
            "user_email": "ann@example.com", "runner_id": 1, "ref_protected": "true", "pipeline_source": "push",
        },
        "example/deploy",
    ),
    "Kubernetes": (
        "Kubernetes", 0,
        {
            "aud": ["m2m-api"], "sub": "system:serviceaccount:batch:etl",
            "kubernetes.io": {
                "namespace": "batch", "pod": {"name": "etl-0"}, "serviceaccount": {"name": "etl"},
            },
        },
        "system:serviceaccount:batch:etl",
    ),
    "Okta": (
        "Okta", 0,
        {"ver": 1, "aud": "api://default", "cid": "0oabc", "scp": ["read"], "sub": "0oabc"},
        "0oabc",
    ),
    "any other": ("Any other", 0, {"aud": "m2m-api", "sub": "etl", "client_id": "etl", "scope": "read"}, "etl"),
}  # fmt: skip

# Changes that make it a person's, or another party's.
OTHERS: dict[str, list[dict[str, Any]]] = {
    "Cognito": [{"username": "ann", "sub": "uuid", "cognito:groups": ["us-east-1_Example_IdentityCenter"]}],
    "IAM": [
        {"sub": "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0123"},
    ],
    "Auth0": [{"sub": "auth0|ann", "gty": ABSENT, "scope": "openid profile read"}, {"gty": "password"}],
    "Auth0, RFC 9068": [{"sub": "auth0|ann", "scope": "openid profile read"}],
    "Entra, version 2": [
        {"scp": "read", "idtyp": "user", "name": "Ann"}, {"roles": ABSENT},
        {"azp": ABSENT, "azpacr": ABSENT, "idtyp": ABSENT, "name": "Ann", "preferred_username": "ann@example.com"},
    ],
    "Entra, version 1": [{"scp": "read", "unique_name": "ann@example.com"}],
    "GitHub": [{"repository": "another/deploy", "sub": "repo:another/deploy:ref:refs/heads/main"}],
    "GitLab": [
        {"project_path": "another/deploy"},
        {"project_path": ABSENT, "sub": "1", "name": "Ann", "nickname": "ann", "email": "ann@example.com"},
    ],
    "Kubernetes": [{"sub": "system:serviceaccount:batch:default"}],
    "Okta": [{"uid": "00uabc", "sub": "ann@example.com", "scp": ["openid", "read"]}],
    "any other": [{"sub": "ann"}],
}  # fmt: skip


def configurations(title: str) -> list[str]:
    """The configuration files of a section."""
    return [text for text in re.findall(r"^```yaml\n(.*?)^```", SECTIONS[title], re.M | re.S) if "issuers:" in text]


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explain:
    """The reason that `explain` gives for a machine's token with changes, and what it says about the client."""

    def explained(case: str, changes: dict[str, Any]) -> tuple[str, str]:
        title, number, documented, _ = MACHINES[case]
        configuration = yaml.safe_load(configurations(title)[number])
        (issuer,) = configuration["issuers"]
        claims = edited({"iss": issuer.get("issuer"), "jti": "1", **documented}, changes)
        claims |= {"iat": int(time.time()), "exp": int(time.time()) + 300}
        token = KEY.sign(claims, header={"typ": claims.pop("typ", "JWT")})
        for name in ("jwks_url", "ca_file", "bearer_token_file"):
            issuer.pop(name, None)
        if "cognito" in issuer:
            issuer |= {"profile": "cognito", "issuer": claims["iss"]}
            del issuer["cognito"]
        issuer["jwks_file"] = "keys.json"
        (tmp_path / "keys.json").write_text(json.dumps({"keys": [KEY.jwk()]}))
        (tmp_path / "m2m.yaml").write_text(yaml.safe_dump(configuration))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(token.encode())))
        cli.main(["explain", "--json", "--config", str(tmp_path / "m2m.yaml"), "--url", "https://api.example.com/"])
        answer = json.loads(capsys.readouterr().out)
        return answer["reason"], next(step["detail"] for step in answer["steps"] if step["name"] == "client")

    return explained


@pytest.mark.parametrize("case", MACHINES)
def test_a_documented_machines_token_passes(explain: Explain, case: str) -> None:
    assert explain(case, {}) == ("ok", f"client {MACHINES[case][3]}")


@pytest.mark.parametrize(("case", "changes"), [(case, changes) for case, group in OTHERS.items() for changes in group])
def test_another_token_of_the_same_issuer_does_not_pass(explain: Explain, case: str, changes: dict[str, Any]) -> None:
    assert explain(case, changes)[0] in ("not_m2m", "client_not_allowed")


@pytest.mark.parametrize("title", [title for title in SECTIONS if title != RULES])
def test_every_issuer_has_a_configuration_a_trap_and_a_row_in_the_first_table(title: str) -> None:
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")

    assert configurations(title)
    assert SECTIONS[title].count("**Easily missed.**") == 1
    assert f"| [{title}](#{anchor}) |" in DOCS["issuers"].path.read_text()


def test_every_profile_has_a_rule() -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[RULES], re.M) == list(PROFILES)
