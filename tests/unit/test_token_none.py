"""Rules without a token, from the configuration to answer, metrics and audit, through the application."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest

from tests.unit.support import NOW, Clock, FakeFetch, ask_app, observation
from verifier.app import Application, create_app
from verifier.config import Config
from verifier.observe.audit import line
from verifier.proxies import nginx

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


async def test_the_decision_is_counted_without_issuer_and_not_as_would_deny(app: Application, ask: Ask) -> None:
    await ask(path="/verify/watched")
    app.service.collect()
    text = generate_latest(app.service.metrics.registry).decode()

    assert 'decisions_total{issuer="",policy="watched",reason="ok",status="200"} 1.0' in text
    assert "would_deny_total{" not in text
    assert "client_decisions_total{" not in text


def test_the_audit_line_names_no_client(app: Application) -> None:
    request = nginx.parse(
        "api", b"", [(b"x-original-method", b"OPTIONS"), (b"x-original-url", b"https://h/db")], "10.0.0.7"
    )
    entry = json.loads(line(observation(NOW, request, app.service.runtime.gate.decide(request), 0.0)))

    assert {name: entry[name] for name in ("event", "reason", "policy", "issuer", "client_id", "cached")} == {
        "event": "allow", "reason": "ok", "policy": "api", "issuer": "", "client_id": "", "cached": False,
    }  # fmt: skip
