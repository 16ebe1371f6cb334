"""From a token's bytes to a verified token; the first check that fails gives the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from tests.unit.support import (
    ABSENT,
    ISSUER,
    JWKS_URL,
    NOW,
    FakeFetch,
    SigningKey,
    by_reason,
    claims,
    jwks,
    make_issuer,
    make_verifier,
    outcome,
    rejected,
    show,
)
from verifier.keys.fetch import FetchError
from verifier.keys.jwk import parse_key_set
from verifier.keys.sets import KeySet, RemoteKeys
from verifier.reasons import Reason
from verifier.tokens.profiles import PROFILES
from verifier.tokens.verify import TokenVerifier

Mint = Callable[..., bytes]
Keys = Callable[[str], SigningKey]


@pytest.fixture
def verifier(signer: SigningKey) -> TokenVerifier:
    """One issuer, generic profile, one RSA key."""
    return make_verifier(make_issuer([signer.public()]))


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Keys:
    """A key by the name of its fixture."""
    return request.getfixturevalue


def test_a_valid_token_verifies(verifier: TokenVerifier, mint: Mint) -> None:
    token = verifier.verify(mint())

    assert (token.principal.issuer, token.principal.client_id, token.principal.scope) == ("lab", "etl", "read write")
    assert (token.exp, token.jti, token.checked_at) == (NOW + 3600, "token-1", NOW)
    assert (token.key.retired, token.principal.listed) == (False, True)
    assert verifier.verify(mint(jti=ABSENT)).jti == ""


# --- algorithm, issuer, key, signature ---

UNSUPPORTED = Reason.UNSUPPORTED_ALGORITHM
SIGNED: dict[str, tuple[list[str], str, dict[str, Any], Reason, str]] = {
    "RSA": (["signer"], "signer", {}, Reason.OK, ""),
    "P-256": (["ec_signer"], "ec_signer", {}, Reason.OK, ""),
    "Ed25519": (["ed_signer"], "ed_signer", {}, Reason.OK, ""),
    "no kid, and one key fits": (["signer", "ec_signer"], "signer", {"kid": None}, Reason.OK, ""),
    "no kid, and no key fits": (["ec_signer"], "signer", {"kid": None}, Reason.UNKNOWN_KEY, "no kid"),
    "an unknown kid": (["signer"], "signer", {"kid": "unknown"}, Reason.UNKNOWN_KEY, "the token's kid"),
    "the kid of another issuer's key": (["signer"], "other_signer", {}, Reason.UNKNOWN_KEY, "the token's kid"),
    "another key's signature": (["signer"], "other_signer", {"kid": "rsa"}, Reason.BAD_SIGNATURE, ""),
    "an algorithm that does not fit the key of that kid": (["signer"], "ec_signer", {"kid": "rsa"}, UNSUPPORTED, ""),
}  # fmt: skip


@pytest.mark.parametrize(("published", "signed_by", "header", "reason", "words"), SIGNED.values(), ids=SIGNED)
def test_a_token_is_verified_with_its_issuers_key_of_its_kid(
    key: Keys, published: list[str], signed_by: str, header: dict[str, Any], reason: Reason, words: str
) -> None:
    mine = make_issuer([key(name).public() for name in published])
    other = make_issuer([key("other_signer").public()], name="other", urls=("https://other.example",))
    verifier, token = make_verifier(mine, other), key(signed_by).sign(claims(), header=header).encode()

    assert outcome(verifier.verify, token) is reason
    assert not words or words in rejected(verifier.verify, token).description


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_every_rsa_algorithm_on_the_list_verifies(signer: SigningKey, algorithm: str) -> None:
    verifier = make_verifier(make_issuer([signer.public(alg=None)], algorithms=frozenset({algorithm})))

    assert outcome(verifier.verify, signer.sign(claims(), algorithm=algorithm).encode()) is Reason.OK


def test_an_algorithm_that_only_another_issuer_lists_is_refused(ec_signer: SigningKey) -> None:
    mine = make_issuer([ec_signer.public()], algorithms=frozenset({"RS256"}))
    other = make_issuer([], name="other", urls=("https://other.example",), algorithms=frozenset({"ES256"}))
    no = rejected(make_verifier(mine, other).verify, ec_signer.sign(claims()).encode())

    assert (no.reason, no.issuer) == (UNSUPPORTED, "lab")


@pytest.mark.parametrize(
    ("listed", "curve", "algorithm", "reason"),
    [
        ("EdDSA", "Ed25519", "Ed25519", Reason.OK), ("Ed25519", "Ed25519", "EdDSA", Reason.OK),
        ("Ed25519", "Ed25519", "Ed25519", Reason.OK), ("EdDSA", "Ed448", "EdDSA", Reason.OK),
        ("EdDSA", "Ed448", "Ed25519", UNSUPPORTED), ("Ed25519", "Ed448", "EdDSA", UNSUPPORTED),
        ("RS256", "Ed25519", "Ed25519", UNSUPPORTED),
    ],
)  # fmt: skip
def test_eddsa_and_ed25519_are_one_algorithm_with_an_ed25519_key(
    ed_signer: SigningKey, listed: str, curve: str, algorithm: str, reason: Reason
) -> None:
    """RFC 9864."""
    signer = ed_signer if curve == "Ed25519" else SigningKey(Ed448PrivateKey.generate(), "EdDSA", "ed448")
    verifier = make_verifier(make_issuer([signer.public()], algorithms=frozenset({listed})))

    assert outcome(verifier.verify, signer.sign(claims(), header={"alg": algorithm}).encode()) is reason


OTHER_ISSUERS = [ISSUER + "/", ISSUER.upper(), "", " " + ISSUER, "https://other.example", ABSENT, None, [ISSUER]]


@pytest.mark.parametrize("iss", OTHER_ISSUERS, ids=show)
def test_the_issuer_must_be_equal_letter_by_letter(verifier: TokenVerifier, mint: Mint, iss: Any) -> None:
    no = rejected(verifier.verify, mint(iss=iss))

    assert (no.reason, no.issuer) == (Reason.UNKNOWN_ISSUER, "")


def test_an_issuer_may_have_several_urls(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()], urls=(ISSUER, "https://also.example")))

    assert verifier.verify(mint(iss="https://also.example")).principal.issuer == "lab"


@pytest.mark.parametrize("kid", ["rsa", None])
def test_each_of_four_keys_is_tried(signer: SigningKey, other_signer: SigningKey, kid: str | None) -> None:
    keys = [*(signer.public(kid="rsa", x5t=str(place)) for place in range(3)), other_signer.public(kid="rsa")]
    token = make_verifier(make_issuer(keys)).verify(other_signer.sign(claims(), header={"kid": kid}).encode())

    assert token.key is keys[3]


@pytest.mark.parametrize(("x5t", "reason"), [("1", Reason.OK), ("3", Reason.OK), ("2", Reason.BAD_SIGNATURE)])
def test_only_the_key_with_the_tokens_thumbprint_is_tried(
    signer: SigningKey, other_signer: SigningKey, mint: Mint, x5t: str, reason: Reason
) -> None:
    verifier = make_verifier(make_issuer([signer.public(x5t="1"), other_signer.public(kid="rsa", x5t="2")]))

    assert outcome(verifier.verify, mint(header={"x5t": x5t})) is reason


@pytest.mark.parametrize(
    ("usable", "kid", "words", "reason"),
    [
        pytest.param(True, "weak", "the token's kid", Reason.UNKNOWN_KEY, id="its kid"),
        pytest.param(True, "rsa", "the token's kid", Reason.BAD_SIGNATURE, id="the kid of a usable key too"),
        pytest.param(True, None, "without kid", Reason.BAD_SIGNATURE, id="no kid"),
        pytest.param(False, "weak", "not available", Reason.KEYS_UNAVAILABLE, id="no usable key"),
    ],
)
def test_a_refusal_says_why_the_published_key_cannot_be_used(
    signer: SigningKey, weak_signer: SigningKey, usable: bool, kid: str | None, words: str, reason: Reason
) -> None:
    parsed = parse_key_set(jwks(*[signer] * usable, weak_signer.jwk(kid=kid)))
    verifier = make_verifier(make_issuer(KeySet(parsed.usable, parsed.unusable)))
    no = rejected(verifier.verify, weak_signer.sign(claims(), header={"kid": kid}).encode())

    assert no.reason is reason
    assert words in no.description
    assert no.description.endswith("cannot be used: it is an RSA key of 1024 bits, not of 2048 to 8192")


def test_changed_claims_make_the_signature_bad(verifier: TokenVerifier, mint: Mint) -> None:
    header, _, signature = mint().split(b".")
    changed = mint(scope="admin").split(b".")[1]

    assert outcome(verifier.verify, b".".join((header, changed, signature))) is Reason.BAD_SIGNATURE


# --- keys that may be fetched ---


async def with_remote_keys(fetch: FakeFetch, seconds: float = 60) -> tuple[TokenVerifier, RemoteKeys]:
    """Keys that were fetched once; ``seconds`` pass with each fetch."""
    keys = RemoteKeys("lab", ISSUER, JWKS_URL, fetch, lambda: NOW + seconds * len(fetch.asked))
    await keys.refresh()
    return make_verifier(make_issuer(keys)), keys


@pytest.mark.parametrize(
    ("new_key", "kid", "reason"),
    [
        pytest.param("other_signer", "new", Reason.UNKNOWN_KEY, id="a new key"),
        pytest.param("other_signer", "rsa", Reason.BAD_SIGNATURE, id="replaced under its kid"),
        pytest.param("ec_signer", "rsa", UNSUPPORTED, id="replaced by another kind"),
    ],
)
async def test_a_token_verifies_after_the_refresh_that_its_rejection_offers(
    key: Keys, fetch: FakeFetch, new_key: str, kid: str, reason: Reason
) -> None:
    verifier, _ = await with_remote_keys(fetch)
    fetch.answers[JWKS_URL] = jwks(key(new_key).jwk(kid=kid))
    token = key(new_key).sign(claims(), header={"kid": kid}).encode()
    no = rejected(verifier.verify, token)

    assert no.reason is reason
    assert no.refresh is not None
    await no.refresh()
    assert outcome(verifier.verify, token) is Reason.OK


async def test_a_bad_signature_offers_no_refresh_during_the_cooldown(
    other_signer: SigningKey, fetch: FakeFetch
) -> None:
    verifier, _ = await with_remote_keys(fetch, seconds=0)
    no = rejected(verifier.verify, other_signer.sign(claims(), header={"kid": "rsa"}).encode())

    assert (no.reason, no.refresh) == (Reason.BAD_SIGNATURE, None)


async def test_without_any_keys_the_decision_is_indeterminate(mint: Mint) -> None:
    verifier, keys = await with_remote_keys(FakeFetch({JWKS_URL: FetchError("down")}))
    no = rejected(verifier.verify, mint())

    assert (no.reason, no.issuer, no.refresh) == (Reason.KEYS_UNAVAILABLE, "lab", keys.refresh)


def test_keys_from_a_file_offer_no_refresh(verifier: TokenVerifier, mint: Mint) -> None:
    assert rejected(verifier.verify, mint(header={"kid": "unknown"})).refresh is None


@pytest.mark.parametrize(("kid", "issuers"), [("rsa", ["lab"]), ("unknown", [])])
def test_only_signature_checks_are_observed_with_their_issuer(
    signer: SigningKey, mint: Mint, kid: str, issuers: list[str]
) -> None:
    seen: list[tuple[str, float]] = []
    verifier = make_verifier(make_issuer([signer.public()]), observe=lambda *check: seen.append(check))
    outcome(verifier.verify, mint(header={"kid": kid}))

    assert [issuer for issuer, _ in seen] == issuers
    assert all(seconds > 0 for _, seconds in seen)


# --- claims: times, M2M, audience, types, proof ---

# What each of them may hold is tested where it is read: test_claims, test_principals, test_proofs.
CLAIMS: dict[Reason, list[dict[str, Any]]] = {
    Reason.OK: [
        {"exp": NOW - 9}, {"exp": NOW + 0.5}, {"exp": 2.0**53},
        {"nbf": NOW + 10}, {"iat": NOW + 10}, {"iat": ABSENT},
    ],
    Reason.EXPIRED: [{"exp": NOW - 10}, {"exp": 0}, {"exp": -1}],
    Reason.NOT_YET_VALID: [{"nbf": NOW + 11}, {"iat": NOW + 11}],
    Reason.INVALID_CLAIMS: [
        {"exp": ABSENT}, {"exp": "1900000000"}, {"nbf": "0"}, {"iat": "0"}, {"jti": 5}, {"client_id": 5}, {"scope": 5},
    ],
    Reason.NOT_M2M: [{"sub": "ann"}, {"client_id": ABSENT}],
    Reason.BAD_PROOF: [{"cnf": {}}],
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), by_reason(CLAIMS), ids=show)
def test_claims_are_checked(verifier: TokenVerifier, mint: Mint, changes: dict[str, Any], reason: Reason) -> None:
    assert outcome(verifier.verify, mint(**changes)) is reason


def test_the_description_names_the_profile_that_a_machines_token_fits(verifier: TokenVerifier, mint: Mint) -> None:
    okta = {"client_id": ABSENT, "cid": "etl", "scp": ["read"]}
    machine, person = rejected(verifier.verify, mint(**okta)), rejected(verifier.verify, mint(**okta, sub="ann"))

    assert machine.description.endswith("; this looks like Okta: set profile: okta")
    assert person.description.endswith("it has no client_id or azp")


ANY: dict[str, Any] = {"audience": None}
OPTIONAL: dict[str, Any] = {"audience": frozenset(), "audience_optional": True}
USERS: dict[str, Any] = {"allow_users": True}
OWN_TYPE: dict[str, Any] = {"typ": frozenset({"vnd+jwt"})}
RFC9068: dict[str, Any] = {"profile": "rfc9068"}


def typed(settings: dict[str, Any], *types: str | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """An issuer and tokens of these types."""
    return [(settings, {"header": {"typ": typ}}) for typ in types]


# Settings of the issuer; changes to header and claims.
SETTINGS: dict[Reason, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    Reason.OK: [
        ({}, {"aud": "api"}), ({}, {"aud": ["x", "api"]}), (ANY, {"aud": "x"}), (ANY, {"aud": ABSENT}),
        (OPTIONAL, {"aud": ABSENT}), (OPTIONAL, {"aud": []}), (OPTIONAL | {"audience": {"api"}}, {"aud": "api"}),
        (USERS, {"sub": "ann"}),
        *typed({}, None, "JWT", "jose", "at+jwt", "application/jwt", "Application/AT+JWT", "application/jose"),
        *typed(OWN_TYPE, "VND+jwt", "application/vnd+jwt"),
        *typed(RFC9068, "AT+JWT", "application/at+jwt"),
    ],
    Reason.WRONG_AUDIENCE: [
        ({}, {"aud": "x"}), ({}, {"aud": "API"}), ({}, {"aud": []}), ({}, {"aud": ABSENT}), (OPTIONAL, {"aud": ""}),
        (OPTIONAL, {"aud": "x"}),
    ],
    Reason.INVALID_CLAIMS: [
        ({}, {"aud": 5}), ({}, {"aud": None}), ({}, {"aud": ["api", 5]}), (ANY, {"aud": 5}), (OPTIONAL, {"aud": None}),
        (USERS, {"sub": 5}),
    ],
    # a type that names another kind of token
    Reason.NOT_M2M: [
        (USERS | {"profile": "cognito"}, {"token_use": "id"}),
        *typed({}, "logout+jwt", "logout+at+jwt", "id_token", "dpop+jwt", "", " jwt"),
        *typed({}, "application/", "text/jwt", "application/x/jwt"),
        *typed(OWN_TYPE, "other+jwt"),
        *typed(RFC9068, "JWT", None),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("case", "reason"), by_reason(SETTINGS), ids=show)
def test_the_issuer_names_its_types_and_audiences_and_may_allow_people(
    signer: SigningKey, mint: Mint, case: tuple[dict[str, Any], dict[str, Any]], reason: Reason
) -> None:
    settings, changes = case

    assert outcome(make_verifier(make_issuer([signer.public()], **settings)).verify, mint(**changes)) is reason


# --- the principal ---


def test_the_issuer_decides_how_scopes_and_clients_are_read(signer: SigningKey, mint: Mint) -> None:
    issuer = make_issuer(
        [signer.public()],
        profile=PROFILES["okta"].with_claims(("app", "id"), "realm.roles"),
        scope_prefix="https://api/",
        clients=frozenset({"other"}),
    )
    token = mint(app={"id": "etl"}, realm={"roles": ["https://api/read", "write"]})
    principal = make_verifier(issuer).verify(token).principal

    assert principal.scopes == {"https://api/read", "read", "write"}
    assert (principal.client_id, principal.scope, principal.listed) == ("etl", "https://api/read write", False)
