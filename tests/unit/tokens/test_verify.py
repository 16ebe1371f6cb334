"""From a token's bytes to a verified token; the first check that fails gives the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from tests.unit.support import (
    ABSENT,
    ISSUER,
    JWKS_URL,
    NOW,
    Clock,
    FakeFetch,
    SigningKey,
    b64,
    claims,
    jwks,
    loop_clock,
    make_issuer,
)
from verifier.identity import Principal, VerifiedToken
from verifier.keys.fetch import FetchError
from verifier.keys.jwk import parse_key_set
from verifier.keys.sets import KeySet, RemoteKeys, located_at
from verifier.reasons import Reason, Rejected
from verifier.tokens.profiles import PROFILES, Profile
from verifier.tokens.verify import Issuer, TokenVerifier

Mint = Callable[..., bytes]


def make_verifier(*issuers: Issuer, **changes: Any) -> TokenVerifier:
    given: dict[str, Any] = {"clock": Clock(), "leeway": 10.0, "role_of": lambda *_: "", "mapped_headers": {}}
    return TokenVerifier(issuers, **(given | changes))


def verify(verifier: TokenVerifier, token: str | bytes) -> VerifiedToken:
    return verifier.verify(token.encode() if isinstance(token, str) else token)


def rejected(verifier: TokenVerifier, token: str | bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        verify(verifier, token)
    return caught.value


def outcome(verifier: TokenVerifier, token: str | bytes) -> Reason:
    try:
        verify(verifier, token)
    except Rejected as rejection:
        return rejection.reason
    return Reason.OK


@pytest.fixture
def verifier(signer: SigningKey) -> TokenVerifier:
    """One issuer, generic profile, one RSA key."""
    return make_verifier(make_issuer([signer.public()]))


# --- a valid token ---


def test_a_valid_token_verifies(verifier: TokenVerifier, signer: SigningKey, mint: Mint) -> None:
    token = verify(verifier, mint())

    assert (token.principal.issuer, token.principal.client_id, token.principal.scope) == ("lab", "etl", "read write")
    assert (token.exp, token.jti, token.checked_at) == (NOW + 3600, "token-1", NOW)
    assert (token.key.retired, token.principal.listed) == (False, True)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_every_rsa_algorithm_on_the_list_verifies(signer: SigningKey, algorithm: str) -> None:
    verifier = make_verifier(make_issuer([signer.public(alg=None)], algorithms=frozenset({algorithm})))

    assert outcome(verifier, signer.sign(claims(), algorithm=algorithm)) is Reason.OK


@pytest.mark.parametrize("key", ["ec_signer", "ed_signer"])
def test_p256_and_ed25519_verify(request: pytest.FixtureRequest, key: str) -> None:
    signing = request.getfixturevalue(key)

    assert outcome(make_verifier(make_issuer([signing.public()])), signing.sign(claims())) is Reason.OK


def test_hs256_verifies_with_a_secret_from_a_file() -> None:
    signer = SigningKey(b"k" * 32, "HS256", "file")
    verifier = make_verifier(make_issuer([signer.public()], algorithms=frozenset({"HS256"})))

    assert outcome(verifier, signer.sign(claims())) is Reason.OK


def test_a_token_without_jti_has_an_empty_one(verifier: TokenVerifier, mint: Mint) -> None:
    assert verify(verifier, mint(jti=ABSENT)).jti == ""


# --- algorithm, issuer, key, signature ---


def test_none_is_no_algorithm(verifier: TokenVerifier, signer: SigningKey) -> None:
    token = signer.sign(claims(), header=b'{"alg":"none"}').rpartition(".")[0] + "."

    assert outcome(verifier, token) is Reason.UNSUPPORTED_ALGORITHM


def test_an_algorithm_that_only_another_issuer_lists_is_refused(ec_signer: SigningKey) -> None:
    mine = make_issuer([ec_signer.public()], algorithms=frozenset({"RS256"}))
    other = make_issuer([], name="other", urls=("https://other.example",), algorithms=frozenset({"ES256"}))

    no = rejected(make_verifier(mine, other), ec_signer.sign(claims()))
    assert (no.reason, no.issuer) == (Reason.UNSUPPORTED_ALGORITHM, "lab")


@pytest.mark.parametrize(
    ("listed", "curve", "algorithm", "reason"),
    [
        ("EdDSA", "Ed25519", "Ed25519", Reason.OK),
        ("Ed25519", "Ed25519", "EdDSA", Reason.OK),
        ("Ed25519", "Ed25519", "Ed25519", Reason.OK),
        ("EdDSA", "Ed448", "EdDSA", Reason.OK),
        ("EdDSA", "Ed448", "Ed25519", Reason.UNSUPPORTED_ALGORITHM),
        ("Ed25519", "Ed448", "EdDSA", Reason.UNSUPPORTED_ALGORITHM),
        ("RS256", "Ed25519", "Ed25519", Reason.UNSUPPORTED_ALGORITHM),
    ],
)
def test_eddsa_and_ed25519_are_one_algorithm_with_an_ed25519_key(
    ed_signer: SigningKey, listed: str, curve: str, algorithm: str, reason: Reason
) -> None:
    """RFC 9864."""
    signer = ed_signer if curve == "Ed25519" else SigningKey(Ed448PrivateKey.generate(), "EdDSA", "ed448")
    verifier = make_verifier(make_issuer([signer.public()], algorithms=frozenset({listed})))

    assert outcome(verifier, signer.sign(claims(), header={"alg": algorithm})) is reason


def test_an_algorithm_that_does_not_fit_the_key_of_that_kid_is_refused(
    verifier: TokenVerifier, signer: SigningKey, ec_signer: SigningKey
) -> None:
    assert outcome(verifier, ec_signer.sign(claims(), header={"kid": signer.kid})) is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "iss",
    [ISSUER + "/", ISSUER.upper(), "", " " + ISSUER, "https://other.example", ABSENT, None, [ISSUER]],
    ids=["slash", "case", "empty", "space", "other", "absent", "null", "list"],
)
def test_the_issuer_must_be_equal_letter_by_letter(verifier: TokenVerifier, mint: Mint, iss: Any) -> None:
    no = rejected(verifier, mint(iss=iss))

    assert (no.reason, no.issuer) == (Reason.UNKNOWN_ISSUER, "")


def test_an_issuer_may_have_several_urls(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()], urls=(ISSUER, "https://also.example")))

    assert verify(verifier, mint(iss="https://also.example")).principal.issuer == "lab"


def test_an_unknown_kid_is_an_unknown_key(signer: SigningKey, verifier: TokenVerifier) -> None:
    no = rejected(verifier, signer.sign(claims(), header={"kid": "unknown"}))

    assert (no.reason, no.issuer) == (Reason.UNKNOWN_KEY, "lab")
    assert "the token's kid" in no.description


def test_a_token_without_kid_verifies_where_one_key_fits(signer: SigningKey, ec_signer: SigningKey) -> None:
    verifier = make_verifier(make_issuer([signer.public(), ec_signer.public()]))

    assert outcome(verifier, signer.sign(claims(), header={"kid": None})) is Reason.OK


def test_a_token_without_kid_that_no_key_fits_is_told_so(signer: SigningKey, ec_signer: SigningKey) -> None:
    no = rejected(make_verifier(make_issuer([ec_signer.public()])), signer.sign(claims(), header={"kid": None}))

    assert no.reason is Reason.UNKNOWN_KEY
    assert "no kid" in no.description


@pytest.mark.parametrize("kid", ["rsa", None])
def test_each_of_four_keys_is_tried(signer: SigningKey, other_signer: SigningKey, kid: str | None) -> None:
    keys = [*(signer.public(kid="rsa", x5t=str(place)) for place in range(3)), other_signer.public(kid="rsa")]
    token = verify(make_verifier(make_issuer(keys)), other_signer.sign(claims(), header={"kid": kid}))

    assert token.key is keys[3]


@pytest.mark.parametrize("kid", ["rsa", None])
def test_only_the_key_with_the_tokens_thumbprint_is_tried(
    signer: SigningKey, other_signer: SigningKey, kid: str | None
) -> None:
    keys = [signer.public(x5t="one"), other_signer.public(kid="rsa", x5t="two")]
    verifier = make_verifier(make_issuer(keys))

    assert outcome(verifier, signer.sign(claims(), header={"kid": kid, "x5t": "one"})) is Reason.OK
    assert outcome(verifier, signer.sign(claims(), header={"kid": kid, "x5t": "three"})) is Reason.OK
    assert outcome(verifier, signer.sign(claims(), header={"kid": kid, "x5t": "two"})) is Reason.BAD_SIGNATURE


def unusable(*keys: SigningKey, jwk: dict[str, Any]) -> TokenVerifier:
    """An issuer that publishes ``keys`` and one that cannot be used."""
    parsed = parse_key_set(jwks(*keys, jwk))
    return make_verifier(make_issuer(KeySet(parsed.usable, parsed.unusable)))


@pytest.mark.parametrize(
    ("kid", "token_kid", "key", "reason"),
    [
        pytest.param("weak", "weak", "the token's kid", Reason.UNKNOWN_KEY, id="its kid"),
        pytest.param("rsa", "rsa", "the token's kid", Reason.BAD_SIGNATURE, id="the kid of a usable key too"),
        pytest.param(None, None, "without kid", Reason.BAD_SIGNATURE, id="no kid"),
    ],
)
def test_a_refusal_says_why_the_published_key_cannot_be_used(
    signer: SigningKey, weak_signer: SigningKey, kid: str | None, token_kid: str | None, key: str, reason: Reason
) -> None:
    verifier = unusable(signer, jwk=weak_signer.jwk(kid=kid))
    no = rejected(verifier, weak_signer.sign(claims(), header={"kid": token_kid}))

    assert no.reason is reason
    assert key in no.description
    assert no.description.endswith("cannot be used: it is an RSA key of 1024 bits, not of 2048 to 8192")


def test_where_no_key_of_the_set_is_usable_the_decision_is_indeterminate(weak_signer: SigningKey) -> None:
    no = rejected(unusable(jwk=weak_signer.jwk()), weak_signer.sign(claims()))

    assert no.reason is Reason.KEYS_UNAVAILABLE
    assert no.description.endswith("cannot be used: it is an RSA key of 1024 bits, not of 2048 to 8192")


def test_another_keys_signature_is_bad(signer: SigningKey, other_signer: SigningKey, verifier: TokenVerifier) -> None:
    token = other_signer.sign(claims(), header={"kid": signer.kid})

    assert outcome(verifier, token) is Reason.BAD_SIGNATURE


def test_changed_claims_make_the_signature_bad(verifier: TokenVerifier, signer: SigningKey, mint: Mint) -> None:
    header, _, signature = mint().split(b".")
    changed = signer.sign(claims(scope="admin")).encode().split(b".")[1]

    assert outcome(verifier, b".".join((header, changed, signature))) is Reason.BAD_SIGNATURE


def test_one_issuers_key_does_not_sign_for_another(signer: SigningKey, other_signer: SigningKey) -> None:
    mine = make_issuer([signer.public()])
    other = make_issuer([other_signer.public()], name="other", urls=("https://other.example",))

    assert outcome(make_verifier(mine, other), other_signer.sign(claims())) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_keys_that_a_token_names_or_carries_are_not_followed(
    signer: SigningKey, other_signer: SigningKey, fetch: FakeFetch, name: str
) -> None:
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), loop_clock)
    await keys.refresh()
    carried = {"jku": "https://evil.example/keys", "x5u": "https://evil.example/cert", "x5c": ["AAAA"]}
    token = other_signer.sign(claims(), header={name: carried.get(name, other_signer.jwk())})

    assert outcome(make_verifier(make_issuer(keys)), token) is Reason.UNKNOWN_KEY
    assert set(fetch.asked) == {JWKS_URL}


async def test_a_token_of_a_new_key_verifies_after_the_refresh_that_its_rejection_offers(
    signer: SigningKey, other_signer: SigningKey, fetch: FakeFetch
) -> None:
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), lambda: NOW + 60 * len(fetch.asked))
    await keys.refresh()
    fetch.answers[JWKS_URL] = jwks(signer, other_signer)
    verifier, token = make_verifier(make_issuer(keys)), other_signer.sign(claims())
    refresh = rejected(verifier, token).refresh

    assert refresh is not None
    await refresh()
    assert outcome(verifier, token) is Reason.OK


@pytest.mark.parametrize(
    ("new_key", "reason"), [("other_signer", Reason.BAD_SIGNATURE), ("ec_signer", Reason.UNSUPPORTED_ALGORITHM)]
)
async def test_a_key_that_was_replaced_under_its_kid_is_fetched(
    request: pytest.FixtureRequest, signer: SigningKey, fetch: FakeFetch, new_key: str, reason: Reason
) -> None:
    replacement = request.getfixturevalue(new_key)
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), lambda: NOW + 60 * len(fetch.asked))
    await keys.refresh()
    fetch.answers[JWKS_URL] = jwks(replacement.jwk(kid=signer.kid))
    verifier, token = make_verifier(make_issuer(keys)), replacement.sign(claims(), header={"kid": signer.kid})
    no = rejected(verifier, token)

    assert no.reason is reason
    assert no.refresh is not None
    await no.refresh()
    assert outcome(verifier, token) is Reason.OK


async def test_a_bad_signature_offers_no_refresh_during_the_cooldown(
    signer: SigningKey, other_signer: SigningKey, fetch: FakeFetch
) -> None:
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), lambda: NOW)
    await keys.refresh()
    no = rejected(make_verifier(make_issuer(keys)), other_signer.sign(claims(), header={"kid": signer.kid}))

    assert (no.reason, no.refresh) == (Reason.BAD_SIGNATURE, None)


async def test_without_any_keys_the_decision_is_indeterminate(signer: SigningKey) -> None:
    keys = RemoteKeys("lab", FakeFetch({JWKS_URL: FetchError("down")}), located_at(JWKS_URL), loop_clock)
    no = rejected(make_verifier(make_issuer(keys)), signer.sign(claims()))

    assert (no.reason, no.issuer, no.refresh) == (Reason.KEYS_UNAVAILABLE, "lab", keys.refresh)


def test_keys_from_a_file_offer_no_refresh(signer: SigningKey, verifier: TokenVerifier) -> None:
    assert rejected(verifier, signer.sign(claims(), header={"kid": "unknown"})).refresh is None


@pytest.mark.parametrize(("kid", "issuers"), [("rsa", ["lab"]), ("unknown", [])])
def test_only_signature_checks_are_observed_with_their_issuer(signer: SigningKey, kid: str, issuers: list[str]) -> None:
    seen: list[tuple[str, float]] = []
    verifier = make_verifier(make_issuer([signer.public()]), observe=lambda *check: seen.append(check))
    outcome(verifier, signer.sign(claims(), header={"kid": kid}))

    assert [issuer for issuer, _ in seen] == issuers
    assert all(seconds > 0 for _, seconds in seen)


# --- claims: times, M2M, audience, types, proof ---

WRONG_TIMES: tuple[Any, ...] = (None, "1900000000", True, False, [NOW], {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"exp": NOW - 9}, Reason.OK, id="exp within leeway"),
        pytest.param({"exp": NOW - 10}, Reason.EXPIRED, id="exp at leeway's end"),
        pytest.param({"exp": 0}, Reason.EXPIRED, id="exp 0"),
        pytest.param({"exp": -1}, Reason.EXPIRED, id="exp negative"),
        pytest.param({"exp": NOW + 0.5}, Reason.OK, id="exp a fraction"),
        pytest.param({"exp": 2.0**53}, Reason.OK, id="exp the largest exact number"),
        pytest.param({"exp": 2.0**53 + 2}, Reason.INVALID_CLAIMS, id="exp beyond it"),
        pytest.param({"nbf": NOW + 10}, Reason.OK, id="nbf within leeway"),
        pytest.param({"nbf": NOW + 11}, Reason.NOT_YET_VALID, id="nbf beyond leeway"),
        pytest.param({"iat": NOW + 10}, Reason.OK, id="iat within leeway"),
        pytest.param({"iat": NOW + 11}, Reason.NOT_YET_VALID, id="iat beyond leeway"),
        pytest.param({"iat": ABSENT}, Reason.OK, id="no iat"),
        pytest.param({"exp": ABSENT}, Reason.INVALID_CLAIMS, id="no exp"),
        *(
            pytest.param({name: value}, Reason.INVALID_CLAIMS, id=f"{name} {value!r}")
            for name in ("exp", "nbf", "iat")
            for value in WRONG_TIMES
        ),
        pytest.param({"sub": "ann"}, Reason.NOT_M2M, id="a person's token"),
        pytest.param({"client_id": ABSENT}, Reason.NOT_M2M, id="no client"),
        pytest.param({"jti": 5}, Reason.INVALID_CLAIMS, id="jti a number"),
        pytest.param({"scope": 5}, Reason.INVALID_CLAIMS, id="scope a number"),
        pytest.param({"scope": ["read", 5]}, Reason.INVALID_CLAIMS, id="scope a list with a number"),
        pytest.param({"scope": "read\tall"}, Reason.INVALID_CLAIMS, id="scope with a tab"),
        pytest.param({"scope": "read\nx"}, Reason.INVALID_CLAIMS, id="scope with a line break"),
        pytest.param({"scope": ["read all"]}, Reason.INVALID_CLAIMS, id="a scope with a space"),
        pytest.param({"scope": "é"}, Reason.INVALID_CLAIMS, id="scope not ASCII"),
        *(
            pytest.param({"client_id": client, "sub": client}, Reason.INVALID_CLAIMS, id=f"client {client!r}")
            for client in ("a b", "a\r\nX: y", "é", "", 5)
        ),
        *(
            pytest.param({"cnf": cnf}, Reason.BAD_PROOF, id=f"cnf {cnf}")
            for cnf in ({"jkt": "abc"}, {"x5t#S256": "abc"}, {}, None)
        ),
    ],
)
def test_claims_are_checked(verifier: TokenVerifier, mint: Mint, changes: dict[str, Any], reason: Reason) -> None:
    """Without proof a token that is bound to its sender is refused (RFC 7800 section 3.1)."""
    assert outcome(verifier, mint(**changes)) is reason


@pytest.mark.parametrize("part", ["W10", b64(b'{"iss":"a","iss":"a"}'), b64(b"{"), "A", ""], ids=repr)
def test_a_broken_claims_part_is_invalid_claims(verifier: TokenVerifier, mint: Mint, part: str) -> None:
    header, _, signature = mint().split(b".")

    assert outcome(verifier, b".".join((header, part.encode(), signature))) is Reason.INVALID_CLAIMS


def test_the_clock_is_the_one_passed_in(signer: SigningKey, mint: Mint) -> None:
    clock = Clock()
    verifier = make_verifier(make_issuer([signer.public()]), clock=clock, leeway=0.0)
    token = mint(exp=NOW + 1)

    assert outcome(verifier, token) is Reason.OK
    clock.now = NOW + 1
    assert outcome(verifier, token) is Reason.EXPIRED


@pytest.mark.parametrize(
    ("profile", "changes", "reason"),
    [
        ("generic", {"sub": "ann"}, Reason.OK),
        ("generic", {"sub": 5}, Reason.INVALID_CLAIMS),
        ("cognito", {"token_use": "id"}, Reason.NOT_M2M),
    ],
    ids=["a person's", "sub a number", "an id token"],
)
def test_allow_users_lets_peoples_access_tokens_in(
    signer: SigningKey, mint: Mint, profile: str, changes: dict[str, Any], reason: Reason
) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile=profile, allow_users=True))

    assert outcome(verifier, mint(**changes)) is reason


OKTA = {"client_id": ABSENT, "cid": "etl", "scp": ["read"]}


@pytest.mark.parametrize(
    ("changes", "suggestion"),
    [
        (OKTA, "; this looks like Okta: set profile: okta"),
        (OKTA | {"sub": "ann"}, ""),
        (
            {"azp": "etl", "sub": "uuid", "typ": "Bearer", "jti": "trrtcc:1"},
            "; this looks like Keycloak: set profile: keycloak",
        ),
        ({"sub": "ann"}, ""),
    ],
    ids=["Okta", "a person of Okta", "Keycloak", "a person"],
)
def test_the_description_names_the_profile_that_a_machines_token_fits(
    verifier: TokenVerifier, mint: Mint, changes: dict[str, Any], suggestion: str
) -> None:
    no = rejected(verifier, mint(**changes))

    assert no.reason is Reason.NOT_M2M
    assert no.description.endswith(suggestion)
    assert ("looks like" in no.description) is bool(suggestion)


GOOD_TYPES: list[str | None] = [
    None,
    "JWT",
    "jose",
    "at+jwt",
    "application/jwt",
    "Application/AT+JWT",
    "application/jose",
]
OTHER_TYPES: list[str | None] = [
    "logout+jwt", "logout+at+jwt", "id_token", "dpop+jwt", "", "application/", "text/jwt", "application/x/jwt", " jwt",
]  # fmt: skip


@pytest.mark.parametrize("typ", GOOD_TYPES + OTHER_TYPES)
def test_a_type_that_names_another_kind_of_token_does_not_pass(
    verifier: TokenVerifier, signer: SigningKey, typ: str | None
) -> None:
    expected = Reason.OK if typ in GOOD_TYPES else Reason.NOT_M2M

    assert outcome(verifier, signer.sign(claims(), header={"typ": typ})) is expected


@pytest.mark.parametrize("profile", ["generic", "rfc9068"])
@pytest.mark.parametrize(
    ("typ", "reason"), [("VND+jwt", Reason.OK), ("application/vnd+jwt", Reason.OK), ("other+jwt", Reason.NOT_M2M)]
)
def test_an_issuer_may_name_further_types(signer: SigningKey, profile: str, typ: str, reason: Reason) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile=profile, typ=frozenset({"vnd+jwt"})))

    assert outcome(verifier, signer.sign(claims(), header={"typ": typ})) is reason


@pytest.mark.parametrize(
    ("typ", "reason"),
    [("AT+JWT", Reason.OK), ("application/at+jwt", Reason.OK), ("JWT", Reason.NOT_M2M), (None, Reason.NOT_M2M)],
)
def test_an_rfc_9068_token_must_name_its_type(signer: SigningKey, typ: str | None, reason: Reason) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile="rfc9068"))

    assert outcome(verifier, signer.sign(claims(), header={"typ": typ})) is reason


ANY: dict[str, Any] = {"audience": None}
OPTIONAL: dict[str, Any] = {"audience": frozenset(), "audience_optional": True}


@pytest.mark.parametrize(
    ("issuer", "aud", "reason"),
    [
        pytest.param({}, "api", Reason.OK, id="a configured one"),
        pytest.param({}, ["x", "api"], Reason.OK, id="a configured one among others"),
        pytest.param({}, "x", Reason.WRONG_AUDIENCE, id="another"),
        pytest.param({}, "API", Reason.WRONG_AUDIENCE, id="another case"),
        pytest.param({}, [], Reason.WRONG_AUDIENCE, id="empty list"),
        pytest.param({}, ABSENT, Reason.WRONG_AUDIENCE, id="absent"),
        pytest.param({}, 5, Reason.INVALID_CLAIMS, id="a number"),
        pytest.param({}, None, Reason.INVALID_CLAIMS, id="null"),
        pytest.param({}, ["api", 5], Reason.INVALID_CLAIMS, id="a list with a number"),
        pytest.param(ANY, "x", Reason.OK, id="any: another"),
        pytest.param(ANY, ABSENT, Reason.OK, id="any: absent"),
        pytest.param(ANY, 5, Reason.INVALID_CLAIMS, id="any: a number"),
        pytest.param(OPTIONAL, ABSENT, Reason.OK, id="optional: absent"),
        pytest.param(OPTIONAL, [], Reason.OK, id="optional: empty list"),
        pytest.param(OPTIONAL, None, Reason.INVALID_CLAIMS, id="optional: null"),
        pytest.param(OPTIONAL, "", Reason.WRONG_AUDIENCE, id="optional: empty"),
        pytest.param(OPTIONAL, "x", Reason.WRONG_AUDIENCE, id="optional: there, but not configured"),
        pytest.param(OPTIONAL | {"audience": frozenset({"api"})}, "api", Reason.OK, id="optional: configured"),
    ],
)
def test_the_audience_must_be_configured(
    signer: SigningKey, mint: Mint, issuer: dict[str, Any], aud: Any, reason: Reason
) -> None:
    assert outcome(make_verifier(make_issuer([signer.public()], **issuer)), mint(aud=aud)) is reason


ORDER: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.EXPIRED, {"exp": 1}),
    (Reason.NOT_M2M, {"sub": "ann"}),
    (Reason.WRONG_AUDIENCE, {"aud": "other"}),
    (Reason.INVALID_CLAIMS, {"jti": 5}),
    (Reason.BAD_PROOF, {"cnf": {}}),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[str(reason) for reason, _ in ORDER])
def test_the_first_check_that_fails_gives_the_reason(verifier: TokenVerifier, mint: Mint, first: int) -> None:
    changes = {name: value for _, broken in ORDER[first:] for name, value in broken.items()}

    assert outcome(verifier, mint(**changes)) is ORDER[first][0]


def test_no_rejection_quotes_the_token(verifier: TokenVerifier, mint: Mint) -> None:
    token = mint(exp=1)

    assert not any(part.decode() in rejected(verifier, token).description for part in token.split(b"."))


# --- the principal ---


def principal_of(signer: SigningKey, changes: Mapping[str, Any], profile: Profile, **settings: Any) -> Principal:
    """What becomes of claims with ``changes``."""
    verifier = make_verifier(make_issuer([signer.public()], profile=profile, **settings))
    return verify(verifier, signer.sign(claims(**changes))).principal


def test_the_issuer_decides_how_scopes_and_clients_are_read(signer: SigningKey) -> None:
    settings = {"scope_prefix": "https://api/", "clients": frozenset({"other"})}
    principal = principal_of(signer, {"cid": "etl", "scp": ["https://api/read"]}, PROFILES["okta"], **settings)

    assert principal.scopes == {"https://api/read", "read"}
    assert (principal.scope, principal.listed) == ("https://api/read", False)


def test_client_id_and_scope_may_be_nested(signer: SigningKey) -> None:
    profile = PROFILES["okta"].with_claims(("app", "id"), "realm_access.roles")
    principal = principal_of(signer, {"app": {"id": "etl"}, "realm_access": {"roles": ["a", "b"]}}, profile)

    assert (principal.client_id, principal.scope) == ("etl", "a b")


@pytest.mark.parametrize(
    ("scope", "warnings"), [("realm_access.roles", 1), ("scope", 0), (None, 0)], ids=["absent", "present", "default"]
)
def test_a_scope_claim_that_no_token_has_is_a_warning_once(
    signer: SigningKey, mint: Mint, caplog: pytest.LogCaptureFixture, scope: str | None, warnings: int
) -> None:
    profile = PROFILES["generic" if scope else "okta"].with_claims("client_id", scope)
    verifier = make_verifier(make_issuer([signer.public()], profile=profile))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            verify(verifier, mint())

    assert len(caplog.messages) == warnings
    assert all("realm_access.roles" in message and "lab" in message for message in caplog.messages)
