"""``check --online``: what it prints about the keys of each issuer, and whether tokens can pass."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import ISSUER, JWKS_URL, FakeFetch, SigningKey, jwks
from verifier.config import Config
from verifier.keys.fetch import FetchError
from verifier.tools import online

Check = Callable[..., tuple[bool, str]]
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"


@pytest.fixture
def check(make_config: Callable[[Any], Config]) -> Check:
    """Whether each issuer has usable keys, and what is printed; ``answers`` are those of the network."""

    def run(answers: dict[str, Any], *settings: dict[str, Any]) -> tuple[bool, str]:
        given = [{"name": "lab", "issuer": ISSUER, "audience": "any"} | changes for changes in settings or ({},)]
        out = io.StringIO()
        usable = online.run(make_config({"issuers": given}), lambda _: FakeFetch(answers), out)
        return usable, out.getvalue()

    return run


def test_keys_are_counted_for_each_algorithm_of_the_issuer(
    check: Check, signer: SigningKey, other_signer: SigningKey, ec_signer: SigningKey
) -> None:
    answers = {JWKS_URL: jwks(signer, other_signer, ec_signer)}

    assert check(answers, {"jwks_url": f"{JWKS_URL}", "algorithms": ["RS256", "ES256", "PS256"]}) == (
        True,
        f"issuer lab: usable keys: 3 (ES256 1, PS256 0, RS256 2), from {JWKS_URL}\n",
    )


def test_discovered_keys_are_found_and_a_query_is_not_printed(check: Check, signer: SigningKey) -> None:
    url = f"{JWKS_URL}?secret=1"
    answers = {DISCOVERY: json.dumps({"issuer": ISSUER, "jwks_uri": url}).encode(), url: jwks(signer)}

    assert check(answers) == (True, f"issuer lab: usable keys: 1 (RS256 1), from {JWKS_URL}\n")


def test_a_skipped_key_is_named_with_its_cause(check: Check, signer: SigningKey, weak_signer: SigningKey) -> None:
    usable, printed = check({JWKS_URL: jwks(signer, weak_signer, {"kid": "a\n\x1b[1m"})}, {"jwks_url": JWKS_URL})

    assert usable
    assert "  skipped: the key with kid weak: it is an RSA key of 1024 bits" in printed
    assert r"  skipped: the key with kid a\n\x1b[1m: its type is not supported" in printed


@pytest.mark.parametrize(
    ("settings", "answer", "message"),
    [
        ({"jwks_url": JWKS_URL}, FetchError("status 404"), "no keys: https://issuer.example/keys: status 404"),
        ({"jwks_url": JWKS_URL}, b"<html>", "no keys: https://issuer.example/keys: "),
        ({"jwks_url": JWKS_URL}, b'{"keys": []}', "no token of lab can pass"),
        ({}, b"", "no keys: discovery failed: "),
    ],
    ids=["an error", "no JSON", "an empty set", "no discovery document"],
)
def test_an_issuer_without_keys_is_named_with_the_cause(
    check: Check, settings: dict[str, Any], answer: Any, message: str
) -> None:
    usable, printed = check({JWKS_URL: answer}, settings)

    assert not usable
    assert message in printed


def test_keys_that_fit_no_algorithm_of_the_issuer_are_an_error(check: Check, ec_signer: SigningKey) -> None:
    assert check({JWKS_URL: jwks(ec_signer)}, {"jwks_url": JWKS_URL}) == (
        False,
        f"issuer lab: usable keys: 1 (RS256 0), from {JWKS_URL}\n"
        "  no token of lab can pass: no key fits its `algorithms`\n",
    )


def test_every_issuer_is_reported_and_one_error_is_an_error(check: Check, signer: SigningKey) -> None:
    usable, printed = check(
        {JWKS_URL: jwks(signer)},
        {"name": "a", "issuer": "https://a.example", "jwks_url": "https://a.example/keys"},
        {"name": "b", "jwks_url": JWKS_URL},
    )

    assert not usable
    assert [line.split(":")[0] for line in printed.splitlines()] == ["issuer a", "issuer b"]


def test_a_key_file_is_reported_without_a_fetch(check: Check, signer: SigningKey, tmp_path: Any) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert check({}, {"jwks_file": "keys.json"}) == (
        True,
        f"issuer lab: usable keys: 1 (RS256 1), from {tmp_path / 'keys.json'}\n",
    )
