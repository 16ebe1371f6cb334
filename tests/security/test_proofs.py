"""DPoP proofs that hypothesis makes: whatever they hold, they are refused, and for no other reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.minting import SigningKey, b64
from tests.unit.support import NOW, Clock, make_token
from verifier.identity import Binding
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest, Credentials
from verifier.tokens.proofs import Proofs, SeenProofs

TOKEN, URL = b"eyJ.eyJ.c2ln", "https://api.example/db/a"
KEY = SigningKey.generate("ES256", "")
PROOF = KEY.proof(TOKEN, URL, iat=NOW)
JWK = KEY.jwk(kid=None, use=None, alg=None)

bounded = settings(settings.get_profile("security"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def check(proof: bytes, url: str = URL) -> None:
    """Check a proof with an empty memory."""
    request = AuthRequest("api", b"", None, "GET", url.encode("utf-8", "surrogatepass"), proofs=(proof,))
    checker = Proofs({}, SeenProofs(), clock=Clock(), leeway=10)
    checker.check(request, Credentials(True, TOKEN), replace(make_token(), binding=Binding(KEY.jkt, None)), "")


def refused(proof: bytes, url: str = URL) -> None:
    with pytest.raises(Rejected) as caught:
        check(proof, url)
    assert caught.value.reason is Reason.BAD_PROOF


def test_the_proof_that_is_mutated_here_is_accepted() -> None:
    check(PROOF)


@bounded
@given(st.integers(0, len(PROOF) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_proof_with_other_bytes_is_refused(place: int, put: bytes, cut: int) -> None:
    mutated = PROOF[:place] + put + PROOF[place + cut :]

    if mutated.strip(b" \t") != PROOF:
        refused(mutated)


@bounded
@given(st.sampled_from(["typ", "alg", "jwk", "crit", "b64"]), values)
def test_a_header_with_any_other_value_is_refused(name: str, value: Any) -> None:
    ordinary = {"typ": "dpop+jwt", "alg": "ES256", "jwk": JWK, "crit": None, "b64": None}

    if value != ordinary[name]:
        refused(KEY.proof(TOKEN, URL, iat=NOW, header={name: value} if value is not None else {"typ": None}))


@bounded
@given(st.sampled_from(sorted(JWK)), values)
def test_a_key_with_any_other_member_is_refused(name: str, value: Any) -> None:
    if value != JWK[name]:
        refused(KEY.proof(TOKEN, URL, iat=NOW, header={"jwk": {**JWK, name: value}}))


@bounded
@given(st.sampled_from(["htm", "htu", "ath"]), values)
def test_a_claim_with_any_other_value_is_refused(name: str, value: Any) -> None:
    refused(KEY.proof(TOKEN, URL, **{"iat": NOW, name: value}))


@bounded
@given(st.text(max_size=40), st.binary(max_size=40))
def test_no_other_url_is_the_one_of_a_proof(url: str, signature: bytes) -> None:
    refused(PROOF, url)
    refused(PROOF, f"https://{url}/db/b")
    head, claims, _ = PROOF.split(b".")
    refused(b".".join([head, claims, b64(signature).encode()]))
    refused(b".".join([b64(json.dumps({"typ": url}).encode()).encode(), claims, b"AA"]))
