"""Proofs of possession: DPoP (RFC 9449) and client certificates (RFC 8705)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.support import (
    ABSENT,
    NOW,
    Clock,
    SigningKey,
    b64,
    make_principal,
    make_token,
    memory_taken,
    rejected,
    show,
)
from verifier.identity import Binding
from verifier.keys.jwk import ASYMMETRIC_ALGORITHMS
from verifier.reasons import Reason
from verifier.request import AuthRequest, Credentials
from verifier.tokens import proofs
from verifier.tokens.proofs import Proofs, SeenProofs, binding_of

TOKEN = b"eyJ.eyJ.c2ln"
URL = "https://api.example/db/a"
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"  # the example of RFC 9449 section 6.1
DER = bytes(range(256)) * 4  # the certificate is hashed, not parsed
X5T = b64(hashlib.sha256(DER).digest())
PEM = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(DER).decode() + "-----END CERTIFICATE-----\n"
HEADER = b"ssl-client-cert"

KEY = SigningKey.generate("ES256", "")
BOUND = Binding(KEY.jkt, None)
prove = partial(KEY.proof, TOKEN, URL, iat=NOW)  # fits, unless claims are changed

Check = Callable[..., None]


@pytest.fixture
def check(clock: Clock) -> Check:
    """Check a DPoP proof, by default for a request and a token that it fits."""
    checker = Proofs({"lab": "SSL-Client-Cert", "other": None}, SeenProofs(), clock=clock, leeway=10)

    def run(
        *values: bytes, url: str = URL, method: str = "GET", origin: str = "", is_dpop: bool = True,
        binding: Binding | None = BOUND, headers: Any = (), issuer: str = "lab",
    ) -> None:  # fmt: skip
        request = AuthRequest("api", b"", None, method, url.encode(), proofs=values, headers=headers)
        token = replace(make_token(make_principal(issuer=issuer)), binding=binding)
        checker.check(request, Credentials(is_dpop, TOKEN), token, origin)

    return run


def refused(check: Check, *values: bytes, **options: Any) -> str:
    """The description of the refusal."""
    no = rejected(check, *values, **options)
    assert (no.reason, no.issuer) == (Reason.BAD_PROOF, options.get("issuer", "lab"))
    return no.description


# --- what a token is bound to ---


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, None),
        ({"cnf": {"jkt": THUMBPRINT}}, Binding(THUMBPRINT, None)),
        ({"cnf": {"x5t#S256": THUMBPRINT}}, Binding(None, THUMBPRINT)),
        ({"cnf": {"x5t#S256": X5T, "jkt": THUMBPRINT}}, Binding(THUMBPRINT, X5T)),
    ],
)
def test_a_token_is_bound_by_what_its_cnf_names(claims: dict[str, Any], expected: Binding | None) -> None:
    assert binding_of(claims) == expected


@pytest.mark.parametrize(
    "cnf",
    [
        None, {}, [], "x", {"jwk": {}}, {"kid": "1"}, {"jkt": THUMBPRINT, "kid": "1"}, {"jkt": None}, {"jkt": ""},
        {"jkt": THUMBPRINT + "="}, {"jkt": THUMBPRINT[:-1] + "J"}, {"jkt": THUMBPRINT + "\n"}, {"jkt": [THUMBPRINT]},
        {"x5t#S256": THUMBPRINT.replace("-", "+")}, {"x5t#S256": X5T, "jkt": "x"}, {"JKT": THUMBPRINT},
    ],
)  # fmt: skip
def test_any_other_cnf_is_refused(cnf: Any) -> None:
    assert rejected(binding_of, {"cnf": cnf}).reason is Reason.BAD_PROOF


# --- DPoP ---


@pytest.mark.parametrize("algorithm", ASYMMETRIC_ALGORITHMS)
def test_every_asymmetric_algorithm_can_sign_a_proof(check: Check, signer: SigningKey, algorithm: str) -> None:
    if algorithm[0] in "RP":
        key = SigningKey(signer.private, algorithm, "")
    else:
        key = SigningKey.generate(algorithm.replace("Ed25519", "EdDSA"), "")

    check(key.proof(TOKEN, URL, iat=NOW, header={"alg": algorithm}), binding=Binding(key.jkt, None))


@pytest.mark.parametrize(
    ("htu", "url"),
    [
        (URL, URL),
        (URL, URL + "?x=1#"[:-1]),
        (URL + "?y=2#z", URL),
        ("HTTPS://API.Example:443/db/a", URL),
        (URL, "https://api.example:443/db/a"),
        ("http://api.example:80/%7Ea%2f%C3%a9", "http://api.example/~a%2F%c3%A9?%"),
        ("https://api.example:08443/", "https://api.example:8443/"),
        ("https://api.example", "https://api.example/"),
        ("https://api.example?x", "https://api.example/?y"),
        ("https://[::1]/a", "https://[::1]/a"),
        ("https://api.example/a/../b", "https://api.example/a/../b"),
    ],
)
def test_htu_is_compared_normalised_and_without_query_and_fragment(check: Check, htu: str, url: str) -> None:
    check(prove(htu=htu), url=url)


@pytest.mark.parametrize(
    ("htu", "url"),
    [
        ("http://api.example/db/a", URL),
        ("https://api.example:8443/db/a", URL),
        ("https://evil.example/db/a", URL),
        ("https://api.example./db/a", URL),
        ("https://api.example/db/A", URL),
        ("https://api.example/db/a/", URL),
        ("https://api.example//db/a", URL),
        ("https://api.example/x/../db/a", URL),
        ("https://api.example/db%2Fa", URL),
        ("https://user@api.example/db/a", URL),
        ("https://api.example@evil.example/db/a", URL),
        ("//api.example/db/a", URL),
        ("/db/a", URL),
        (" https://api.example/db/a", URL),
        ("https://api.example/db/\uff41", URL),
        ("https:\\\\api.example/db/a", URL),
        ("http\u017f://api.example/db/a", URL),  # without case, some letters beyond ASCII are equal to s and k
        ("https://o\u212ata.example/a", "https://okta.example/a"),
        ("", URL),
        ("https://api.example/", "https://api.example?/db/a"),
        ("https://api.example/", "https://api.example#/db/a"),
        ("https://api.example/a", "https://api.example/a#b"),
        ("https:///db/a", "https:///db/a"),
        ("https://api.example/db/a", "/db/a"),
        ("", ""),
    ],
)
def test_another_htu_is_refused(check: Check, htu: str, url: str) -> None:
    assert "URL" in refused(check, prove(htu=htu), url=url)


def test_a_method_that_the_proxy_did_not_name_is_that_of_no_proof(check: Check) -> None:
    assert "method" in refused(check, prove(htm=""), method="")


@pytest.mark.parametrize("url", ["http://10.0.0.7:8080/db/a", "https:///db/a"])
def test_with_a_resource_its_scheme_and_authority_count(check: Check, url: str) -> None:
    check(prove(), url=url, origin="https://API.example:443")


@pytest.mark.parametrize(
    ("url", "htu"),
    [("http://evil.example/db/a", "http://evil.example/db/a"), ("http://h/db/b", URL), ("http://h?/db/a", URL)],
)
def test_with_a_resource_those_that_nginx_saw_do_not_count(check: Check, url: str, htu: str) -> None:
    refused(check, prove(htu=htu), url=url, origin="https://API.example:443")


@pytest.mark.parametrize("age", [60, 0, -10, 0.5])
def test_a_proof_may_be_a_minute_old_or_ahead_by_the_leeway(check: Check, age: float) -> None:
    check(prove(iat=NOW - age))


ATH = b64(hashlib.sha256(TOKEN).digest())
CLAIMS: dict[str, list[Any]] = {
    "htm": ["POST", "get", "", None, ABSENT, ["GET"]],
    "htu": [None, ABSENT, [URL], 1],
    "ath": [None, ABSENT, "", b64(hashlib.sha256(b"another").digest()), ATH + "="],
    "jti": [None, ABSENT, "", 1, ["a"]],
    "iat": [None, ABSENT, "1800000000", True, NOW - 60.1, NOW + 10.1, 0, -1, 10**400, 1e300, [NOW]],
}
HEADER_MEMBERS: dict[str, list[Any]] = {
    "typ": ["JWT", "DPOP+JWT", "application/dpop+jwt", "at+jwt", "", None, 1],
    "alg": ["none", "HS256", "RS256", "ES384", "ES256K", "EdDSA", "es256", "", None, 1, ["ES256"]],
    "jwk": [None, {}, [], "x", {"kty": "EC"}, {"kty": ["EC"]}, {"kty": "oct", "k": "AA"}],
    "crit": [["exp"], []],
    "b64": [False],
}
CHANGES: list[dict[str, Any]] = [
    *({name: value} for name, values in CLAIMS.items() for value in values),
    *({"header": {name: value}} for name, values in HEADER_MEMBERS.items() for value in values),
]


@pytest.mark.parametrize("changes", CHANGES, ids=show)
def test_each_claim_and_each_header_of_a_proof_must_fit(check: Check, changes: dict[str, Any]) -> None:
    refused(check, prove(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        *[{name: "AA"} for name in ("d", "p", "q", "dp", "dq", "qi", "k")], {"oth": []}, {"alg": "ES384"},
        {"alg": None, "use": "enc"}, {"key_ops": ["sign"]}, {"x": 1}, {"x": "AA=="}, {"crv": "P-384"}, {"x": [[[]]]},
    ],
    ids=str,
)  # fmt: skip
def test_a_private_or_unfit_jwk_is_refused(check: Check, changes: dict[str, Any]) -> None:
    refused(check, prove(header={"jwk": {**KEY.jwk(kid=None), **changes}}))


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_short_rsa_key_is_refused_even_if_the_token_is_bound_to_it(check: Check, weak_signer: SigningKey) -> None:
    proof = weak_signer.proof(TOKEN, URL, iat=NOW)

    assert "1024 bits" in refused(check, proof, binding=Binding(weak_signer.jkt, None))


def test_a_point_that_is_not_on_the_curve_is_refused(check: Check) -> None:
    jwk = {**KEY.jwk(kid=None), "y": b64(bytes(32))}
    canonical = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    jkt = b64(hashlib.sha256(canonical.encode()).digest())

    assert "malformed" in refused(check, prove(header={"jwk": jwk}), binding=Binding(jkt, None))


def test_a_jwk_with_an_alg_is_for_that_one_alone(check: Check, signer: SigningKey) -> None:
    bound = Binding(signer.jkt, None)
    other, same, none = (
        signer.proof(TOKEN, URL, iat=NOW, header={"jwk": {**signer.jwk(), "alg": alg}})
        for alg in ("PS256", "RS256", None)
    )

    assert "alg does not fit" in refused(check, other, binding=bound)
    check(same, binding=bound)
    check(none, binding=bound)


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256K"])
def test_the_refusal_of_an_algorithm_names_those_that_are_accepted(check: Check, alg: str) -> None:
    named = refused(check, prove(header={"alg": alg}))

    assert {"ES256", "EdDSA", "RS256"} <= set(named.split())
    assert not {"none", "HS256"} & set(named.split())


def test_another_key_than_the_tokens_is_refused(check: Check) -> None:
    other = SigningKey.generate("ES256", "")

    assert "key that the token is bound to" in refused(check, other.proof(TOKEN, URL, iat=NOW))
    mixed = other.proof(TOKEN, URL, iat=NOW, header={"jwk": KEY.jwk(kid=None)})
    assert "signature" in refused(check, mixed)


def test_a_proof_of_another_form_is_refused(check: Check) -> None:
    good = prove()
    head, body, signature = good.split(b".")
    twice = b64(b'{"htm":"GET",' + base64.urlsafe_b64decode(body + b"==")[1:]).encode()

    for mutated in (
        b"", b"x", b"..", head + b"." + body, good + b".x", good + b"=", good + b"\xff", good + b", " + good,
        head + b"." + twice + b"." + signature, head + b"." + b64(b"[]").encode() + b"." + signature,
        good + b"A" * proofs.MAX_PROOF_BYTES, prove(jti="j" * 8192),
        head + b"." + body + b".", b64(b"[" * 5000).encode() + b"." + body + b"." + signature,
    ):  # fmt: skip
        refused(check, mutated)
    check(b" " + good + b"\t")


def test_there_is_exactly_one_proof(check: Check) -> None:
    proof = prove()

    for values in ((), (proof, proof), (proof, prove())):
        assert "one DPoP header" in refused(check, *values)
    check(proof)


def test_the_scheme_must_fit_the_token(check: Check) -> None:
    """A certificate is no reason for the scheme DPoP."""
    assert "scheme is DPoP" in refused(check, prove(), is_dpop=False)
    for binding in (None, Binding(None, X5T)):
        assert "scheme is Bearer" in refused(check, prove(), binding=binding, headers=[(HEADER, CERTIFICATE)])


@pytest.mark.parametrize("changes", [{"htu": "https://secret.example/"}, {"ath": "secret"}, {"jti": "secret\ud800"}])
def test_descriptions_do_not_quote_the_proof(check: Check, changes: dict[str, str]) -> None:
    assert "secret" not in refused(check, prove(iat=NOW - 61, **changes))


# --- each proof counts once ---


def test_a_proof_counts_once_until_it_is_too_old(check: Check, clock: Clock) -> None:
    proof = prove(iat=NOW + 10)
    check(proof)
    for clock.now in (NOW, NOW + 35, NOW + 69.9, NOW + 70):
        assert "used before" in refused(check, proof)
    clock.now = NOW + 70.1
    assert "old" in refused(check, proof)


def test_a_jti_counts_once_for_a_key_whatever_else_differs(check: Check, clock: Clock) -> None:
    other = SigningKey.generate("ES256", "")
    check(prove(jti="1"))
    clock.now += 15

    assert "used before" in refused(check, prove(iat=NOW + 15, jti="1", extra=1))
    check(other.proof(TOKEN, URL, iat=NOW + 15, jti="1"), binding=Binding(other.jkt, None))


def test_a_refused_proof_is_not_remembered(check: Check) -> None:
    proof = prove(jti="\ud800" + "j" * 2000)
    refused(check, proof, method="POST")
    refused(check, proof, url="https://api.example/other")
    refused(check, proof[:-4] + b"AAAA")

    check(proof)
    assert "used before" in refused(check, proof)


def test_a_full_memory_refuses_new_proofs_until_old_ones_are_too_old(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proofs, "MAX_SEEN", 3)
    seen = SeenProofs()
    for number in range(3):
        seen.add(bytes([number]), NOW + 60, NOW)
    for number in (3, 4):
        assert "too many" in rejected(seen.add, bytes([number]), NOW + 60, NOW).description
    assert "used before" in rejected(seen.add, b"\0", NOW + 60, NOW + 60).description

    assert (len(seen), caplog.text.count("3 DPoP proofs are remembered")) == (3, 1)
    seen.add(b"\4", NOW + 131, NOW + 71)
    assert len(seen) == 1


def test_the_memory_of_proofs_takes_at_most_8_mib() -> None:
    seen = SeenProofs()

    def fill() -> None:
        for number in range(proofs.MAX_SEEN):
            seen.add(number.to_bytes(16), NOW + 60, NOW)

    assert memory_taken(fill) <= 8 * 2**20
    assert len(seen) == proofs.MAX_SEEN


# --- certificates ---

CERTIFICATE = quote(PEM, safe="").encode()
BASE64 = base64.b64encode(DER)
CERTIFICATES = [
    CERTIFICATE,
    quote(PEM.replace("\n", "\r\n")).encode(),
    quote(PEM, safe="-+/= ").encode(),
    b":" + BASE64 + b":",
    BASE64,
]


@pytest.mark.parametrize("value", CERTIFICATES, ids=range(len(CERTIFICATES)))
def test_a_certificate_passes_as_percent_encoded_pem_or_as_base64(check: Check, value: bytes) -> None:
    check(headers=[(HEADER, value)], binding=Binding(None, X5T), is_dpop=False)


# The values of the header, by what the refusal says.
OTHER_CERTIFICATES: dict[str, list[list[bytes]]] = {
    "passed none": [[], [b""]],
    "more than once": [[CERTIFICATE, CERTIFICATE], [CERTIFICATE, b""]],
    "not the one": [[quote(PEM.replace("AAECAw", "AAECBA")).encode()]],
    "neither one PEM nor base64": [
        [X5T.encode()], [b":" + BASE64], [CERTIFICATE * 2], [BASE64 + b"," + BASE64], [b"(null)"], [b"A"], [b"\xff"],
        [CERTIFICATE + b"A" * proofs.MAX_CERTIFICATE_BYTES], [CERTIFICATE.replace(b"CERTIFICATE", b"PRIVATE%20KEY")],
        [b"-----BEGIN%20CERTIFICATE-----%0AA%0A-----END%20CERTIFICATE-----"],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("why", "values"), [(why, one) for why, group in OTHER_CERTIFICATES.items() for one in group])
def test_without_the_right_certificate_a_bound_token_is_refused(check: Check, why: str, values: list[bytes]) -> None:
    headers = [(b"x-client-cert", CERTIFICATE), *((HEADER, value) for value in values)]

    assert why in refused(check, headers=headers, binding=Binding(None, X5T), is_dpop=False)


def test_without_a_configured_header_no_certificate_counts(check: Check) -> None:
    bound = {"headers": [(HEADER, CERTIFICATE)], "binding": Binding(None, X5T), "is_dpop": False}

    assert "client_certificate_header" in refused(check, issuer="other", **bound)


def test_a_token_that_is_bound_twice_needs_both_and_spends_no_proof_without_the_certificate(check: Check) -> None:
    both, headers, proof = Binding(KEY.jkt, X5T), [(HEADER, CERTIFICATE)], prove()
    refused(check, proof, binding=both)
    refused(check, headers=headers, binding=both)
    refused(check, headers=headers, binding=both, is_dpop=False)

    check(proof, headers=headers, binding=both)
