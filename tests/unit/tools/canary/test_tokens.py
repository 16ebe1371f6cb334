"""Where the canary's tokens come from, and when one counts as expired."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.unit.support import NOW, Clock
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background
from verifier.tools.canary.settings import Settings
from verifier.tools.canary.tokens import Token, Tokens

SECRET = "a-secret:with%signs"


class Endpoint:
    """A token endpoint: ``answer`` is what it says next, ``asked`` the headers and forms that it was sent."""

    answer: Response

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock(NOW)
        self._issuer = Issuer("https://id.example", clock=self.clock)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def grant(self, lifetime: float) -> str:
        """The token that it answers with from now on."""
        token = self._issuer.mint(self._issuer.machine_claims("canary", ["read"], lifetime))
        self.answer = JSONResponse({"access_token": token, "token_type": "Bearer"})
        return token

    def tokens(self, **source: Any) -> Tokens:
        """The canary's tokens from this source."""
        given = {"url": "https://api.example/canary", "identity": {"X-M2M-Client-ID": "canary"}} | source
        return Tokens(Settings.model_validate(given, context={"folder": self.folder}), self.clock, {})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.asked.append((request.headers.get("authorization", ""), dict(parse_qsl((await request.body()).decode()))))
        await self.answer(scope, receive, send)


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path)


@pytest.fixture
def grant(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """The endpoint as a source of tokens; it runs."""
    (endpoint.folder / "secret").write_text(SECRET + "\n")
    with Background(endpoint) as running:
        yield {"url": running.url, "client_id": "canary", "client_secret_file": "secret", "scope": ["read"]}


@pytest.fixture
def found(endpoint: Endpoint, grant: dict[str, Any]) -> Tokens:
    """Tokens of the endpoint."""
    return endpoint.tokens(token=grant)


def renewed(found: Tokens) -> tuple[str | None, str | None]:
    """The good and the expired token after one more renewal."""
    asyncio.run(found.renew())
    return tuple(token.text if token else None for token in (found.good, found.expired))  # type: ignore[return-value]


def test_a_token_is_kept_until_it_expires_soon_and_counts_as_expired_only_after_the_leeway(
    endpoint: Endpoint, found: Tokens
) -> None:
    first = endpoint.grant(3600)
    assert [renewed(found), renewed(found), len(endpoint.asked)] == [(first, None), (first, None), 1]

    endpoint.clock.now += 3600 - 119
    second = endpoint.grant(3600)
    assert renewed(found) == (second, None)
    endpoint.clock.now += 119 + 59
    assert renewed(found) == (second, None)
    endpoint.clock.now += 1
    assert renewed(found) == (second, first)


@pytest.mark.parametrize("auth", ["basic", "post"])
def test_the_secret_is_sent_as_the_endpoint_asks_for_it(endpoint: Endpoint, grant: dict[str, Any], auth: str) -> None:
    endpoint.grant(3600)
    renewed(endpoint.tokens(token=grant | {"auth": auth, "parameters": {"audience": "api"}}))
    form = {"grant_type": "client_credentials", "scope": "read", "audience": "api"}
    basic = base64.b64encode(b"canary:a-secret%3Awith%25signs").decode()

    assert endpoint.asked == [
        (f"Basic {basic}", form) if auth == "basic" else ("", form | {"client_id": "canary", "client_secret": SECRET})
    ]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (JSONResponse({"access_token": "s3cret"}, 400), "token: the token endpoint answers 400"),
        (RedirectResponse("https://elsewhere.example/"), "token: the token endpoint answers 307"),
        (Response(b"x" * 65537), "token: more than 64 KiB"),
        (Response(b'{"access_token":"a.b.c","access_token":"s3cret"}'), "answers without an access_token"),
        (JSONResponse({"access_token": "s3cret"}), "token: is not a JWT"),
        (JSONResponse({"access_token": "s3cret.e30.x"}), "token: is a JWT without exp"),
    ],
)
def test_what_is_no_token_is_named_and_not_quoted(
    endpoint: Endpoint, found: Tokens, answer: Response, why: str
) -> None:
    endpoint.answer = answer

    assert (renewed(found), why in found.missing_good) == ((None, None), True)
    assert "s3cret" not in found.missing_good


def test_while_the_endpoint_fails_the_token_is_used_until_it_expires(endpoint: Endpoint, found: Tokens) -> None:
    first = endpoint.grant(100)
    renewed(found)
    endpoint.answer = Response(status_code=500)

    assert renewed(found) == (first, None)
    endpoint.clock.now += 100
    assert renewed(found) == (None, None)
    endpoint.clock.now += 60
    assert renewed(found) == (None, first)


def test_a_refused_token_is_replaced_and_never_stands_for_an_expired_one(endpoint: Endpoint, found: Tokens) -> None:
    endpoint.grant(300)
    renewed(found)
    found.forget_good()
    second = endpoint.grant(3600)

    assert renewed(found) == (second, None)
    endpoint.clock.now += 400
    assert renewed(found) == (second, None)


def test_files_are_read_again_and_a_token_that_has_not_expired_stands_for_none(endpoint: Endpoint) -> None:
    found = endpoint.tokens(token_file="good", expired_token_file="old")
    texts = [endpoint.grant(lifetime) for lifetime in (3600, 3601, -59, -60)]
    good_file, expired_file = endpoint.folder / "good", endpoint.folder / "old"
    for good, old, expected in ((0, 2, None), (1, 3, texts[3])):
        good_file.write_text(texts[good] + "\n")
        expired_file.write_text(texts[old])
        assert renewed(found) == (texts[good], expected)
    good_file.write_bytes(b"x" * 16385)
    assert renewed(found)[0] == texts[1]
    assert "larger than 16 KiB" in found.missing_good


def test_a_wrong_signature_differs_in_its_first_character_alone() -> None:
    altered = [Token(f"a.b.{signature}", 0).with_wrong_signature() for signature in ("Axx", "Bxx")]

    assert altered == ["a.b.Bxx", "a.b.Axx"]
