"""Rules without a token, from the configuration to the answer, through the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.support import Clock, FakeFetch, ask_app
from verifier.app import Application, create_app
from verifier.config import Config

Ask = Callable[..., Awaitable[tuple[int, dict[str, str]]]]
IDENTITY = ("x-m2m-client-id", "x-m2m-scope", "x-m2m-role", "x-m2m-issuer", "x-user-id")
POLICY: dict[str, Any] = {
    "scope": ["read"],
    "rules": [{"path": "/**", "methods": ["OPTIONS"], "token": "none"}, {"path": "/db/**"}],
}


@pytest.fixture
def app(make_config: Callable[..., Config], lab: dict[str, Any], fetch: FakeFetch, clock: Clock) -> Application:
    config = make_config(
        {
            **lab,
            "policies": {"api": POLICY, "watched": {**POLICY, "mode": "report"}},
            "headers": {"X-User-ID": "sub"},
        }
    )
    return create_app(config, fetch=fetch, clock=clock)


@pytest.fixture
def ask(app: Application) -> Ask:
    async def ask(method: str = "OPTIONS", path: str = "/verify/api", **headers: str) -> tuple[int, dict[str, str]]:
        given = {"x-original-method": method, "x-original-url": "https://api.example/db/a", **headers}
        return await ask_app(app, path, ((name.replace("_", "-"), value.encode()) for name, value in given.items()))

    return ask


@pytest.mark.parametrize("path", ["/verify/api", "/verify/watched"])
async def test_a_request_without_a_token_is_allowed_with_empty_identity_headers(ask: Ask, path: str) -> None:
    status, headers = await ask(path=path)

    assert (status, {name: headers[name] for name in IDENTITY}) == (200, dict.fromkeys(IDENTITY, ""))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/verify/api?scope=read"},
        {"x_http_method_override": "DELETE"},
        {"x_http_method": "DELETE"},
        {"x_method_override": ""},
        {"method": "GET"},
    ],
    ids=str,
)
async def test_what_could_mean_more_needs_a_token(ask: Ask, changes: dict[str, str]) -> None:
    status, headers = await ask(**changes)

    assert (status, headers["x-m2m-reason"]) == (401, "missing_token")
