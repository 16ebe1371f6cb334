"""From a token's bytes to a verified token; the first check to fail gives the reason."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import jwt
import pytest

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
from verifier.reasons import Reason, Rejected
from verifier.identity import VerifiedToken
from verifier.keys.fetch import FetchError
from verifier.keys.jwk import parse_key
from verifier.keys.sets import RemoteKeys, located_at
from verifier.tokens.verify import Issuer, TokenVerifier, check_typ

Mint = Callable[..., bytes]


def make_verifier(*issuers: Issuer, **changes: Any) -> TokenVerifier:
    given: dict[str, Any] = {"clock": Clock(), "leeway": 10.0, "role_of": lambda *_: "", "mapped_headers": {}}
    return TokenVerifier(issuers, **(given | changes))


def verify(verifier: TokenVerifier, token: str | bytes) -> VerifiedToken:
    return asyncio.run(verifier.verify(token.encode() if isinstance(token, str) else token))


def rejected(verifier: TokenVerifier, token: str | bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        verify(verifier, token)
    return caught.value


@pytest.fixture
def verifier(signer: SigningKey) -> TokenVerifier:
    """One issuer, generic profile, one RSA key."""
    return make_verifier(make_issuer([signer.public()]))


# --- a valid token ---


def test_a_valid_token_verifies(verifier: TokenVerifier, mint: Mint) -> None:
    token = verify(verifier, mint())

    assert (token.principal.issuer, token.principal.client_id, token.principal.scope) == ("lab", "etl", "read write")
    assert (token.exp, token.jti, token.principal.key.kid) == (NOW + 3600, "token-1", "rsa")


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_every_rsa_algorithm_on_the_list_verifies(signer: SigningKey, algorithm: str) -> None:
    verifier = make_verifier(make_issuer([signer.public(alg=None)], algorithms=frozenset({algorithm})))

    assert verify(verifier, signer.sign(claims(), algorithm=algorithm)).principal.client_id == "etl"


@pytest.mark.parametrize("key", ["ec_signer", "ed_signer"])
def test_p256_and_ed25519_verify(request: pytest.FixtureRequest, key: str) -> None:
    signing = request.getfixturevalue(key)

    assert verify(make_verifier(make_issuer([signing.public()])), signing.sign(claims())).principal.client_id == "etl"


def test_hs256_verifies_with_a_secret_from_a_file() -> None:
    secret = parse_key({"kty": "oct", "k": b64(b"k" * 32), "kid": "file"}, symmetric=True)
    signer = SigningKey(b"k" * 32, "HS256", "file")
    verifier = make_verifier(make_issuer([secret], algorithms=frozenset({"HS256"})))

    assert verify(verifier, signer.sign(claims())).principal.client_id == "etl"


def test_a_token_without_jti_has_an_empty_one(verifier: TokenVerifier, mint: Mint) -> None:
    assert verify(verifier, mint(jti=ABSENT)).jti == ""


# --- algorithm, issuer, key, signature ---


def test_none_is_no_algorithm(verifier: TokenVerifier) -> None:
    header, payload = (b64(json.dumps(part).encode()) for part in ({"alg": "none"}, claims()))
    token = f"{header}.{payload}."

    assert rejected(verifier, token).reason is Reason.UNSUPPORTED_ALGORITHM


def test_an_algorithm_that_its_issuer_does_not_list_is_refused(signer: SigningKey, ec_signer: SigningKey) -> None:
    """Even where another issuer lists it."""
    mine = make_issuer([ec_signer.public()], algorithms=frozenset({"RS256"}))
    other = make_issuer([], name="other", urls=("https://other.example",), algorithms=frozenset({"ES256"}))

    no = rejected(make_verifier(mine, other), ec_signer.sign(claims()))
    assert (no.reason, no.issuer) == (Reason.UNSUPPORTED_ALGORITHM, "lab")


def test_an_algorithm_that_does_not_fit_the_key_of_that_kid_is_refused(
    signer: SigningKey, ec_signer: SigningKey
) -> None:
    token = ec_signer.sign(claims(), header={"kid": signer.kid})

    assert rejected(make_verifier(make_issuer([signer.public()])), token).reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "iss",
    [ISSUER + "/", ISSUER.upper(), "", " " + ISSUER, "https://other.example", ABSENT],
    ids=["slash", "case", "empty", "space", "other", "absent"],
)
def test_the_issuer_must_be_equal_letter_by_letter(verifier: TokenVerifier, mint: Mint, iss: Any) -> None:
    no = rejected(verifier, mint(iss=iss))

    assert (no.reason, no.issuer) == (Reason.UNKNOWN_ISSUER, "")


def test_an_issuer_may_have_several_urls(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()], urls=(ISSUER, "https://also.example")))

    assert verify(verifier, mint(iss="https://also.example")).principal.issuer == "lab"


def test_an_unknown_kid_is_an_unknown_key(signer: SigningKey, verifier: TokenVerifier) -> None:
    no = rejected(verifier, signer.sign(claims(), header={"kid": "gone"}))

    assert (no.reason, no.issuer) == (Reason.UNKNOWN_KEY, "lab")


def test_a_token_without_kid_verifies_where_one_key_fits(signer: SigningKey, ec_signer: SigningKey) -> None:
    verifier = make_verifier(make_issuer([signer.public(), ec_signer.public()]))

    assert verify(verifier, signer.sign(claims(), header={"kid": None})).principal.key.kid == "rsa"


def test_a_token_without_kid_is_refused_where_two_keys_fit(signer: SigningKey, other_signer: SigningKey) -> None:
    verifier = make_verifier(make_issuer([signer.public(), other_signer.public()]))

    assert rejected(verifier, signer.sign(claims(), header={"kid": None})).reason is Reason.UNKNOWN_KEY


def test_another_keys_signature_is_bad(signer: SigningKey, other_signer: SigningKey, verifier: TokenVerifier) -> None:
    token = other_signer.sign(claims(), header={"kid": signer.kid})

    assert rejected(verifier, token).reason is Reason.BAD_SIGNATURE


def test_changed_claims_make_the_signature_bad(verifier: TokenVerifier, mint: Mint) -> None:
    header, _, signature = mint().split(b".")
    changed = b64(json.dumps(claims(scope="admin")).encode()).encode()

    assert rejected(verifier, b".".join((header, changed, signature))).reason is Reason.BAD_SIGNATURE


def test_one_issuers_key_does_not_sign_for_another(signer: SigningKey, other_signer: SigningKey) -> None:
    mine = make_issuer([signer.public()])
    other = make_issuer([other_signer.public()], name="other", urls=("https://other.example",))

    assert rejected(make_verifier(mine, other), other_signer.sign(claims())).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_keys_that_a_token_brings_along_are_not_followed(
    signer: SigningKey, other_signer: SigningKey, name: str
) -> None:
    fetch = FakeFetch({JWKS_URL: jwks(signer)})
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), loop_clock)
    brought = {"jku": "https://evil.example/keys", "x5u": "https://evil.example/cert", "x5c": ["AAAA"]}
    token = other_signer.sign(claims(), header={name: brought.get(name, other_signer.jwk())})

    with pytest.raises(Rejected) as caught:
        await make_verifier(make_issuer(keys)).verify(token.encode())
    assert caught.value.reason is Reason.UNKNOWN_KEY
    assert set(fetch.asked) == {JWKS_URL}


async def test_a_new_key_is_fetched_when_its_first_token_comes(
    signer: SigningKey, other_signer: SigningKey, fetch: FakeFetch
) -> None:
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), loop_clock)
    await keys.refresh_for_unknown_kid()
    fetch.answers[JWKS_URL] = jwks(signer, other_signer)
    await asyncio.sleep(10)

    token = await make_verifier(make_issuer(keys)).verify(other_signer.sign(claims()).encode())
    assert token.principal.key.kid == "other"


async def test_without_any_keys_nobody_can_tell(signer: SigningKey) -> None:
    keys = RemoteKeys("lab", FakeFetch({JWKS_URL: FetchError("down")}), located_at(JWKS_URL), loop_clock)

    with pytest.raises(Rejected) as caught:
        await make_verifier(make_issuer(keys)).verify(signer.sign(claims()).encode())
    assert (caught.value.reason, caught.value.issuer) == (Reason.KEYS_UNAVAILABLE, "lab")


def test_a_signature_check_is_observed_with_its_issuer(signer: SigningKey, mint: Mint) -> None:
    seen: list[tuple[str, float]] = []
    verifier = make_verifier(make_issuer([signer.public()]), observe=lambda *told: seen.append(told))
    verify(verifier, mint())

    assert [issuer for issuer, _ in seen] == ["lab"]
    assert seen[0][1] > 0


def test_without_a_signature_check_nothing_is_observed(signer: SigningKey, mint: Mint) -> None:
    seen: list[tuple[str, float]] = []
    verifier = make_verifier(make_issuer([signer.public()]), observe=lambda *told: seen.append(told))
    rejected(verifier, signer.sign(claims(), header={"kid": "gone"}))

    assert seen == []


# --- times ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"exp": NOW - 9}, None, id="exp within leeway"),
        pytest.param({"exp": NOW - 10}, Reason.EXPIRED, id="exp at leeway's end"),
        pytest.param({"exp": 0}, Reason.EXPIRED, id="exp 0"),
        pytest.param({"exp": -1}, Reason.EXPIRED, id="exp negative"),
        pytest.param({"exp": NOW + 0.5}, None, id="exp a fraction"),
        pytest.param({"nbf": NOW + 10}, None, id="nbf within leeway"),
        pytest.param({"nbf": NOW + 11}, Reason.NOT_YET_VALID, id="nbf beyond leeway"),
        pytest.param({"iat": NOW + 10}, None, id="iat within leeway"),
        pytest.param({"iat": NOW + 11}, Reason.NOT_YET_VALID, id="iat beyond leeway"),
        pytest.param({"iat": ABSENT}, None, id="no iat"),
        pytest.param({"exp": ABSENT}, Reason.INVALID_CLAIMS, id="no exp"),
        pytest.param({"exp": None}, Reason.INVALID_CLAIMS, id="exp null"),
        pytest.param({"exp": str(int(NOW) + 60)}, Reason.INVALID_CLAIMS, id="exp a string"),
        pytest.param({"exp": True}, Reason.INVALID_CLAIMS, id="exp a boolean"),
        pytest.param({"exp": [NOW]}, Reason.INVALID_CLAIMS, id="exp a list"),
        pytest.param({"nbf": "0"}, Reason.INVALID_CLAIMS, id="nbf a string"),
        pytest.param({"nbf": False}, Reason.INVALID_CLAIMS, id="nbf a boolean"),
        pytest.param({"nbf": None}, Reason.INVALID_CLAIMS, id="nbf null"),
        pytest.param({"iat": "0"}, Reason.INVALID_CLAIMS, id="iat a string"),
    ],
)
def test_times_are_numbers_and_count_with_leeway(
    verifier: TokenVerifier, signer: SigningKey, changes: dict[str, Any], reason: Reason | None
) -> None:
    # PyJWT refuses to write some of these: sign the bytes themselves.
    token = _signed(signer, claims(**changes))

    if reason is None:
        assert verify(verifier, token).exp == claims(**changes)["exp"]
    else:
        assert rejected(verifier, token).reason is reason


def _signed(signer: SigningKey, payload: dict[str, Any], **header: Any) -> str:
    made = {"kid": signer.kid, **header}
    return jwt.PyJWS().encode(json.dumps(payload).encode(), signer.private, signer.algorithm, headers=made)


def test_the_clock_is_the_one_passed_in(signer: SigningKey, mint: Mint) -> None:
    clock = Clock()
    verifier = make_verifier(make_issuer([signer.public()]), clock=clock, leeway=0.0)
    token = mint(exp=NOW + 1)
    verify(verifier, token)
    clock.now = NOW + 1

    assert rejected(verifier, token).reason is Reason.EXPIRED


# --- M2M, audience, other claims, proof ---


def test_a_persons_token_is_not_m2m(verifier: TokenVerifier, mint: Mint) -> None:
    no = rejected(verifier, mint(sub="ann"))

    assert (no.reason, no.issuer) == (Reason.NOT_M2M, "lab")


def test_a_token_without_client_is_not_m2m(verifier: TokenVerifier, mint: Mint) -> None:
    assert rejected(verifier, mint(client_id=ABSENT)).reason is Reason.NOT_M2M


def test_allow_users_lets_peoples_tokens_in(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()], allow_users=True))

    assert verify(verifier, mint(sub="ann")).principal.client_id == "etl"


def test_allow_users_lets_no_id_token_in(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile="cognito", allow_users=True))

    assert rejected(verifier, mint(token_use="id", aud="api")).reason is Reason.NOT_M2M


@pytest.mark.parametrize(
    ("typ", "wanted", "fits"),
    [
        ("", (), True), ("jwt", (), True), ("at+jwt", (), True), ("application/at+jwt", (), True),
        ("logout+jwt", (), False), ("dpop+jwt", (), False), ("", ("at+jwt",), False), ("jwt", ("at+jwt",), False),
        ("at+jwt", ("at+jwt",), True),
    ],
)  # fmt: skip
def test_a_type_that_names_another_kind_of_token_does_not_fit(typ: str, wanted: tuple[str, ...], fits: bool) -> None:
    assert (check_typ(typ, wanted) is None) == fits


def test_an_rfc_9068_token_says_its_type_in_any_case(signer: SigningKey) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile="rfc9068"))

    assert verify(verifier, signer.sign(claims(), header={"typ": "AT+JWT"})).principal.client_id == "etl"
    assert rejected(verifier, signer.sign(claims())).reason is Reason.NOT_M2M


ANY, COGNITO = None, {"audience": frozenset(), "audience_optional": True}


@pytest.mark.parametrize(
    ("issuer", "aud", "reason"),
    [
        pytest.param({}, "api", None, id="ours"),
        pytest.param({}, ["x", "api"], None, id="ours among others"),
        pytest.param({}, "x", Reason.WRONG_AUDIENCE, id="another"),
        pytest.param({}, "API", Reason.WRONG_AUDIENCE, id="another case"),
        pytest.param({}, [], Reason.WRONG_AUDIENCE, id="empty list"),
        pytest.param({}, ABSENT, Reason.WRONG_AUDIENCE, id="absent"),
        pytest.param({}, 5, Reason.INVALID_CLAIMS, id="a number"),
        pytest.param({}, None, Reason.INVALID_CLAIMS, id="null"),
        pytest.param({}, ["api", 5], Reason.INVALID_CLAIMS, id="a list with a number"),
        pytest.param({"audience": ANY}, "x", None, id="any: another"),
        pytest.param({"audience": ANY}, ABSENT, None, id="any: absent"),
        pytest.param({"audience": ANY}, 5, Reason.INVALID_CLAIMS, id="any: a number"),
        pytest.param(COGNITO, ABSENT, None, id="optional: absent"),
        pytest.param(COGNITO, "x", Reason.WRONG_AUDIENCE, id="optional: there, but not configured"),
        pytest.param({**COGNITO, "audience": frozenset({"api"})}, "api", None, id="optional: there and configured"),
    ],
)
def test_the_audience_must_be_ours(
    signer: SigningKey, mint: Mint, issuer: dict[str, Any], aud: Any, reason: Reason | None
) -> None:
    verifier = make_verifier(make_issuer([signer.public()], **issuer))
    token = _signed(signer, claims(aud=aud))

    if reason is None:
        assert verify(verifier, token).principal.client_id == "etl"
    else:
        assert rejected(verifier, token).reason is reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"jti": 5}, id="jti a number"),
        pytest.param({"scope": 5}, id="scope a number"),
        pytest.param({"scope": ["read", 5]}, id="scope a list with a number"),
        pytest.param({"scope": "read\tall"}, id="scope with a tab"),
        pytest.param({"scope": "read\nx"}, id="scope with a line break"),
        pytest.param({"scope": ["read all"]}, id="a scope with a space"),
        pytest.param({"scope": "é"}, id="scope not ASCII"),
        pytest.param({"client_id": "a b", "sub": "a b"}, id="client with a space"),
        pytest.param({"client_id": "a\r\nX: y", "sub": "a\r\nX: y"}, id="client with a line break"),
        pytest.param({"client_id": "é", "sub": "é"}, id="client not ASCII"),
        pytest.param({"client_id": "", "sub": ""}, id="client empty"),
        pytest.param({"client_id": 5}, id="client a number"),
    ],
)
def test_claims_of_other_types_or_that_no_header_may_carry_are_invalid(
    verifier: TokenVerifier, signer: SigningKey, changes: dict[str, Any]
) -> None:
    assert rejected(verifier, _signed(signer, claims(**changes))).reason is Reason.INVALID_CLAIMS


def test_sub_must_be_a_string_even_where_nobody_looks_at_it(signer: SigningKey) -> None:
    verifier = make_verifier(make_issuer([signer.public()], allow_users=True))

    assert rejected(verifier, _signed(signer, claims(sub=5))).reason is Reason.INVALID_CLAIMS


@pytest.mark.parametrize("part", ["W10", b64(b'{"iss":"a","iss":"a"}'), b64(b"{"), "A", ""], ids=repr)
def test_a_broken_claims_part_is_invalid_claims(verifier: TokenVerifier, mint: Mint, part: str) -> None:
    header, _, signature = mint().split(b".")

    assert rejected(verifier, b".".join((header, part.encode(), signature))).reason is Reason.INVALID_CLAIMS


@pytest.mark.parametrize("cnf", [{"jkt": "abc"}, {"x5t#S256": "abc"}, {}, None], ids=repr)
def test_a_token_that_is_bound_to_its_sender_is_refused_without_proof(
    verifier: TokenVerifier, mint: Mint, cnf: Any
) -> None:
    assert rejected(verifier, mint(cnf=cnf)).reason is Reason.BAD_PROOF


ORDER: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.EXPIRED, {"exp": 1}),
    (Reason.NOT_M2M, {"sub": "ann"}),
    (Reason.WRONG_AUDIENCE, {"aud": "other"}),
    (Reason.INVALID_CLAIMS, {"jti": 5}),
    (Reason.BAD_PROOF, {"cnf": {}}),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[str(reason) for reason, _ in ORDER])
def test_the_first_check_that_fails_gives_the_reason(verifier: TokenVerifier, signer: SigningKey, first: int) -> None:
    changes: dict[str, Any] = {}
    for _, broken in ORDER[first:]:
        changes |= broken

    assert rejected(verifier, _signed(signer, claims(**changes))).reason is ORDER[first][0]


# --- what is made of it ---


def test_scopes_are_held_with_and_without_the_issuers_prefix(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()], scope_prefix="https://api/"))
    principal = verify(verifier, mint(scope="https://api/read write")).principal

    assert principal.scopes == {"https://api/read", "read", "write"}
    assert principal.scope == "https://api/read write"


def test_a_scope_list_becomes_one_header(signer: SigningKey) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile="okta"))
    token = verify(verifier, signer.sign(claims(cid="etl", scp=["a", "b"])))

    assert dict(token.principal.headers)[b"x-m2m-scope"] == b"a b"


def test_the_identity_headers_are_those_of_the_contract(signer: SigningKey, mint: Mint) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), role_of=lambda *_: "arn:role")

    assert dict(verify(verifier, mint()).principal.headers) == {
        b"x-m2m-client-id": b"etl", b"x-m2m-scope": b"read write", b"x-m2m-role": b"arn:role", b"x-m2m-issuer": b"lab",
    }  # fmt: skip


def test_the_role_is_asked_for_issuer_client_and_scopes(signer: SigningKey, mint: Mint) -> None:
    asked: list[Any] = []
    verifier = make_verifier(make_issuer([signer.public()]), role_of=lambda *told: asked.append(told) or "")
    verify(verifier, mint())

    assert asked == [("lab", "etl", frozenset({"read", "write"}))]


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("acme", b"acme"), ("", b""), (ABSENT, b""), (5, b"5"), (1.5, b"1.5"), (True, b"true"), (False, b"false"),
        (["a", "b"], b"a b"), ([], b""), ({"a": 1}, b""), ([1], b""), (None, b""), (["a", None], b""),
    ],
    ids=repr,
)  # fmt: skip
def test_a_mapped_claim_becomes_a_header(signer: SigningKey, mint: Mint, value: Any, header: bytes) -> None:
    """Strings as they are, numbers and booleans as JSON, lists of strings joined by a space, else empty."""
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers={"X-Tenant": "tenant"})

    assert dict(verify(verifier, mint(tenant=value)).principal.headers)[b"x-tenant"] == header


@pytest.mark.parametrize("value", ["a\nb", " a", "a ", "é", ["a", ""], ["", "a"]], ids=repr)
def test_a_mapped_claim_that_no_header_may_carry_refuses_the_token(signer: SigningKey, mint: Mint, value: Any) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers={"X-Tenant": "tenant"})

    assert rejected(verifier, mint(tenant=value)).reason is Reason.INVALID_CLAIMS


def test_a_mapped_claim_of_another_type_warns_once(
    signer: SigningKey, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers={"X-Tenant": "tenant"})
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            verify(verifier, mint(tenant={"a": number}))

    assert len(caplog.records) == 1
    assert "tenant" in caplog.text


def test_tokens_that_say_the_same_share_their_principal(verifier: TokenVerifier, mint: Mint) -> None:
    first, second = verify(verifier, mint(jti="1")), verify(verifier, mint(jti="2"))

    assert first.principal is second.principal


@pytest.mark.parametrize("changes", [{"scope": "read"}, {"client_id": "b", "sub": "b"}, {"tenant": "b"}], ids=repr)
def test_tokens_that_say_something_else_do_not(signer: SigningKey, mint: Mint, changes: dict[str, Any]) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers={"X-Tenant": "tenant"})
    first, second = verify(verifier, mint()), verify(verifier, mint(**changes))

    assert first.principal.headers != second.principal.headers


@pytest.mark.parametrize(("clients", "listed"), [(None, True), ({"etl"}, True), ({"other"}, False), (set(), False)])
def test_a_principal_knows_whether_its_issuer_lists_it(
    signer: SigningKey, mint: Mint, clients: set[str] | None, listed: bool
) -> None:
    issuer = make_issuer([signer.public()], clients=None if clients is None else frozenset(clients))

    assert verify(make_verifier(issuer), mint()).principal.listed is listed


def test_no_rejection_quotes_the_token(verifier: TokenVerifier, mint: Mint) -> None:
    token = mint(exp=1)
    no = rejected(verifier, token)

    assert not any(part.decode() in no.description for part in token.split(b"."))
