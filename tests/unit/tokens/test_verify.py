"""From a token's bytes to a verified token; the first check that fails gives the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

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
from verifier.identity import Principal, VerifiedToken
from verifier.keys.fetch import FetchError
from verifier.keys.sets import RemoteKeys, located_at
from verifier.reasons import Reason, Rejected
from verifier.tokens.verify import Issuer, TokenVerifier, check_typ

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


@pytest.mark.parametrize(("typ", "reason"), [("AT+JWT", Reason.OK), ("JWT", Reason.NOT_M2M)])
def test_an_rfc_9068_token_must_name_its_type_in_any_case(signer: SigningKey, typ: str, reason: Reason) -> None:
    verifier = make_verifier(make_issuer([signer.public()], profile="rfc9068"))

    assert outcome(verifier, signer.sign(claims(), header={"typ": typ})) is reason


ANY: dict[str, Any] = {"audience": None}
OPTIONAL: dict[str, Any] = {"audience": frozenset(), "audience_optional": True}


@pytest.mark.parametrize(
    ("issuer", "aud", "reason"),
    [
        pytest.param({}, "api", Reason.OK, id="ours"),
        pytest.param({}, ["x", "api"], Reason.OK, id="ours among others"),
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
        pytest.param(OPTIONAL, "x", Reason.WRONG_AUDIENCE, id="optional: there, but not configured"),
        pytest.param(OPTIONAL | {"audience": frozenset({"api"})}, "api", Reason.OK, id="optional: configured"),
    ],
)
def test_the_audience_must_be_ours(
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


def principal_of(
    signer: SigningKey, changes: Mapping[str, Any], profile: str = "generic", **settings: Any
) -> Principal:
    """What becomes of claims with ``changes``; ``settings`` are the issuer's or the verifier's."""
    of_verifier = {name: settings.pop(name) for name in ("role_of", "mapped_headers") if name in settings}
    issuer = make_issuer([signer.public()], profile=profile, **settings)
    return verify(make_verifier(issuer, **of_verifier), signer.sign(claims(**changes))).principal


def test_scopes_are_held_with_and_without_the_issuers_prefix(signer: SigningKey) -> None:
    principal = principal_of(signer, {"scope": "https://api/read write"}, scope_prefix="https://api/")

    assert principal.scopes == {"https://api/read", "read", "write"}
    assert (principal.scope, principal.scope_prefix) == ("https://api/read write", "https://api/")


def test_a_scope_list_becomes_one_header(signer: SigningKey) -> None:
    principal = principal_of(signer, {"cid": "etl", "scp": ["a", "b"]}, profile="okta")

    assert dict(principal.headers)[b"x-m2m-scope"] == b"a b"


def test_the_identity_headers_are_those_of_the_contract(signer: SigningKey) -> None:
    principal = principal_of(signer, {}, role_of=lambda *_: "arn:role")

    assert dict(principal.headers) == {
        b"x-m2m-client-id": b"etl", b"x-m2m-scope": b"read write", b"x-m2m-role": b"arn:role", b"x-m2m-issuer": b"lab",
    }  # fmt: skip
    assert principal.header_lines == (
        b"x-m2m-client-id: etl\r\nx-m2m-scope: read write\r\nx-m2m-role: arn:role\r\nx-m2m-issuer: lab\r\n"
    )


def test_the_role_is_looked_up_by_issuer_client_and_scopes(signer: SigningKey) -> None:
    principal = principal_of(
        signer, {}, role_of=lambda *known: " ".join(sorted(map(str, known[:2]))) + str(len(known[2]))
    )

    assert principal.role == "etl lab2"


MAPPED = {"X-Tenant": "tenant"}


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("acme", b"acme"), ("", b""), (ABSENT, b""), (5, b"5"), (1.5, b"1.5"), (True, b"true"), (False, b"false"),
        (["a", "b"], b"a b"), ([], b""), ({"a": 1}, b""), ([1], b""), (None, b""), (["a", None], b""),
    ],
    ids=repr,
)  # fmt: skip
def test_a_mapped_claim_becomes_a_header(signer: SigningKey, value: Any, header: bytes) -> None:
    """Strings as they are, numbers and booleans as JSON, lists of strings joined by a space, else empty."""
    assert dict(principal_of(signer, {"tenant": value}, mapped_headers=MAPPED).headers)[b"x-tenant"] == header


@pytest.mark.parametrize("value", ["a\nb", " a", "a ", "é", ["a", ""], ["", "a"]], ids=repr)
def test_a_mapped_claim_that_no_header_may_carry_refuses_the_token(signer: SigningKey, mint: Mint, value: Any) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers=MAPPED)

    assert outcome(verifier, mint(tenant=value)) is Reason.INVALID_CLAIMS


def test_a_mapped_claim_of_another_type_warns_once(
    signer: SigningKey, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers=MAPPED)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            verify(verifier, mint(tenant={"a": number}))

    assert [record.args for record in caplog.records] == [("tenant",)]


def test_tokens_with_the_same_identity_share_their_principal(verifier: TokenVerifier, mint: Mint) -> None:
    first, second = verify(verifier, mint(jti="1")), verify(verifier, mint(jti="2"))

    assert first.principal is second.principal


@pytest.mark.parametrize("changes", [{"scope": "read"}, {"client_id": "b", "sub": "b"}, {"tenant": "b"}], ids=repr)
def test_tokens_with_another_identity_do_not(signer: SigningKey, mint: Mint, changes: dict[str, Any]) -> None:
    verifier = make_verifier(make_issuer([signer.public()]), mapped_headers=MAPPED)
    first, second = verify(verifier, mint()), verify(verifier, mint(**changes))

    assert first.principal.headers != second.principal.headers


@pytest.mark.parametrize(("clients", "listed"), [(None, True), ({"etl"}, True), ({"other"}, False), (set(), False)])
def test_a_principal_knows_whether_its_issuer_lists_it(
    signer: SigningKey, clients: set[str] | None, listed: bool
) -> None:
    listing = None if clients is None else frozenset(clients)

    assert principal_of(signer, {}, clients=listing).listed is listed
