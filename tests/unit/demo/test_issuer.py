"""The demo's issuer: Cognito's claims, RFC 6749's errors, rotation."""

from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from verifier.demo.issuer import Issuer
from verifier.demo.oauth import OAuthError
from verifier.demo.serving import Background, bind, port_of

PREFIX = "https://api.lab.informationcart.com/"
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    listener = bind()
    made = Issuer(f"http://127.0.0.1:{port_of(listener)}")
    with Background(made.app, listener):
        yield made


@pytest.fixture(scope="module")
def client(issuer: Issuer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=issuer.base, trust_env=False) as made:
        yield made


@pytest.fixture
def credentials(issuer: Issuer) -> tuple[str, str]:
    return issuer.add_client("read", "write")


def verified(issuer: Issuer, token: str) -> dict[str, Any]:
    """The claims, once PyJWT has accepted the token with the published key of its kid."""
    published = httpx.get(issuer.jwks_url, trust_env=False).json()
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["RS256"], issuer=issuer.url)


def test_a_granted_token_verifies_and_has_the_claims_of_cognito(
    issuer: Issuer, client: httpx.Client, credentials: tuple[str, str]
) -> None:
    answer = client.post("/oauth2/token", data=GRANT, auth=credentials)
    token = answer.json().pop("access_token")
    claims = verified(issuer, token)

    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert answer.json() == {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
    assert set(jwt.get_unverified_header(token)) == {"kid", "alg"}
    assert " ".join(sorted(claims)) == "auth_time client_id exp iat iss jti scope sub token_use version"
    assert claims["sub"] == claims["client_id"] == credentials[0]
    assert claims["exp"] - claims["iat"] == 3600
    assert (claims["token_use"], claims["version"]) == ("access", 2)
    assert claims["scope"] == f"{PREFIX}read {PREFIX}write"


def test_the_claims_of_a_client_are_added_to_its_tokens(issuer: Issuer) -> None:
    client_id, secret = issuer.add_client("read")
    issuer.clients[client_id].claims["custom:tenant"] = "acme"

    assert verified(issuer, issuer.grant(client_id, secret))["custom:tenant"] == "acme"


def test_a_requested_scope_is_the_only_one_granted(
    issuer: Issuer, client: httpx.Client, credentials: tuple[str, str]
) -> None:
    answer = client.post("/oauth2/token", data=GRANT | {"scope": f"{PREFIX}read"}, auth=credentials)
    assert verified(issuer, answer.json()["access_token"])["scope"] == f"{PREFIX}read"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (GRANT | {"scope": f"{PREFIX}read {PREFIX}admin"}, "invalid_scope"),
        (GRANT | {"scope": "read"}, "invalid_scope"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({}, "invalid_request"),
        ({"grant_type": ["client_credentials"] * 2}, "invalid_request"),
        (GRANT | {"client_secret": "x"}, "invalid_request"),
    ],
    ids=["scope not granted", "no prefix", "grant", "no grant", "parameter twice", "two ways to authenticate"],
)
def test_a_request_that_cannot_be_granted_is_a_400_with_its_error(
    client: httpx.Client, credentials: tuple[str, str], form: dict[str, str], error: str
) -> None:
    answer = client.post("/oauth2/token", data=form, auth=credentials)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic bm9ib2R5Ong=",
        "Basic bm9ib2R5",
        "Basic *",
        "Basic Zm9v/w==",
        "Basic \xe9",
        "Bearer bm9ib2R5Ong=",
        "",
        None,
    ],
)
def test_an_unknown_client_is_a_401_with_a_challenge(client: httpx.Client, authorization: str | None) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    answer = client.post("/oauth2/token", data=GRANT, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_two_secrets_overlap_while_one_replaces_the_other(
    issuer: Issuer, client: httpx.Client, credentials: tuple[str, str]
) -> None:
    client_id, old = credentials
    issuer.clients[client_id].secrets.append("new")

    def status(secret: str) -> int:  # in the body, the other place where credentials may stand
        form = GRANT | {"client_id": client_id, "client_secret": secret}
        return client.post("/oauth2/token", data=form).status_code

    assert [status(old), status("new"), status("other")] == [200, 200, 401]
    issuer.clients[client_id].secrets.remove(old)
    assert [status(old), status("new")] == [401, 200]


def test_a_rotated_key_stays_published_until_it_is_dropped(issuer: Issuer) -> None:
    before = issuer.mint(issuer.machine_claims("etl", ["read"]))
    kid = issuer.rotate()
    after = issuer.mint(issuer.machine_claims("etl", ["read"]))

    assert jwt.get_unverified_header(after)["kid"] == kid != jwt.get_unverified_header(before)["kid"]
    verified(issuer, before)
    issuer.drop_old_keys()
    verified(issuer, after)
    with pytest.raises(KeyError):
        verified(issuer, before)


def test_discovery_names_the_issuer_and_its_key_set_and_is_also_where_rfc_8414_puts_it(
    issuer: Issuer, client: httpx.Client
) -> None:
    document = client.get(f"{issuer.url}/.well-known/openid-configuration").json()
    inserted = client.get("/.well-known/oauth-authorization-server" + issuer.url.removeprefix(issuer.base)).json()
    assert (document["issuer"], document["jwks_uri"]) == (issuer.url, issuer.jwks_url)
    assert inserted == document


@pytest.mark.parametrize(
    ("known", "asked", "audience"),
    [(set(), "https://a.example", None), ({"https://a.example"}, None, None),
     ({"https://a.example"}, "https://a.example", "https://a.example")],
)  # fmt: skip
def test_a_known_resource_becomes_the_audience(known: set[str], asked: str | None, audience: str | None) -> None:
    """RFC 8707. An issuer that knows none ignores the parameter."""
    made = Issuer("http://127.0.0.1:1")
    made.resources = known
    token = made.grant(*made.add_client("read"), resource=asked)
    assert jwt.decode(token, options={"verify_signature": False}).get("aud") == audience
    made.resources = {"https://b.example"}
    with pytest.raises(OAuthError, match="invalid_target"):
        made.grant(*made.add_client("read"), resource="https://a.example")


def test_a_persons_token_carries_a_client_id_a_username_and_groups(issuer: Issuer) -> None:
    claims = verified(issuer, issuer.mint(issuer.person_claims("ada", "web", ["admins"])))
    assert (claims["client_id"], claims["username"], claims["cognito:groups"]) == ("web", "ada", ["admins"])
    assert claims["sub"] != "web"


def test_minting_signs_whatever_it_is_given(issuer: Issuer) -> None:
    token = issuer.mint(b'{"a":1,"a":2}', header={"alg": "none", "typ": "at+jwt"})
    assert jwt.get_unverified_header(token) == {"kid": issuer.keys[0].kid, "alg": "none", "typ": "at+jwt"}
    assert token.split(".")[1] == "eyJhIjoxLCJhIjoyfQ"


def test_the_clock_and_the_lifetime_decide_when_a_token_expires() -> None:
    claims = Issuer("http://127.0.0.1", clock=lambda: 1000.9).machine_claims("etl", [], lifetime=-60)
    assert (claims["iat"], claims["exp"]) == (1000, 940)
