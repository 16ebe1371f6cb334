"""What an answer, or none, means to a check, where no real proxy gives it. tests/e2e/test_guard.py has a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.unit.support import NOW, Clock
from verifier.tools.canary import CHECKS, Canary, Outcome, Result, Settings
from verifier.tools.canary.checks import Round
from verifier.tools.canary.tokens import Token, Tokens

GOOD, EXPIRED = "a.b.good", "a.b.expired"
Handler = Callable[[httpx.Request], httpx.Response]


def guarded(request: httpx.Request) -> httpx.Response:
    """A proxy whose guard works, with the echo endpoint behind it."""
    if request.headers.get("authorization") != f"Bearer {GOOD}":
        return httpx.Response(401)
    headers = [["X-M2M-Client-ID", "canary"], ["Host", "api.example"]]
    return httpx.Response(200, json={"query": request.url.query.decode(), "headers": headers})


def echoing(*headers: tuple[str, str]) -> Handler:
    """The same, but these headers reach the API too, with the client's values where it sent them."""

    def handler(request: httpx.Request) -> httpx.Response:
        answer = guarded(request)
        if answer.status_code != 200:
            return answer
        seen = answer.json()
        seen["headers"] += [[name, request.headers.get(name, value)] for name, value in headers]
        return httpx.Response(200, json=seen)

    return handler


def otherwise(status: int, content: str = "", refused: bool = True, **headers: str) -> Handler:
    """The same, but with another answer to what is refused, or to what is not."""

    def handler(request: httpx.Request) -> httpx.Response:
        answer = guarded(request)
        if (answer.status_code == 401) is not refused:
            return answer
        text = content.replace("QUERY", request.url.query.decode())
        return httpx.Response(status, text=text, headers={name.replace("_", "-"): v for name, v in headers.items()})

    return handler


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("secret", request=request)


def at_path(path: str, **answer: object) -> Handler:
    """The same, but something else answers at this path."""
    return lambda request: httpx.Response(200, **answer) if request.url.path == path else guarded(request)  # type: ignore[arg-type]


def settings_of(**changes: object) -> Settings:
    given = {"url": "https://api.example/canary", "token_file": "x", "identity": {"X-M2M-Client-ID": "canary"}}
    return Settings.model_validate(given | changes, context={"folder": Path("/nowhere")})


def results(handler: Handler, *, good: str | None = GOOD) -> dict[str, Result]:
    settings = settings_of()
    tokens = Tokens(settings, Clock(NOW), {})
    tokens.good, tokens.expired, tokens.missing_good = good and Token(good, NOW + 60), Token(EXPIRED, 0), "token: none"  # type: ignore[assignment]

    def sent(request: httpx.Request) -> httpx.Response:
        answer = handler(request)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))

    async def found() -> dict[str, Result]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(sent)) as through:
            return await Round(settings, tokens, through).results()

    return asyncio.run(found())


LARGE = json.dumps({"padding": "x" * 65536})
REFUSALS = "no_token forged_headers expired_token wrong_signature"


@pytest.mark.parametrize(
    ("handler", "checks", "outcome", "cause"),
    [
        (guarded, " ".join(CHECKS), Outcome.PASS, ""),
        (otherwise(302), REFUSALS, Outcome.FAIL, "status 302 instead of 401"),
        (otherwise(403), REFUSALS, Outcome.FAIL, "status 403 instead of 401"),
        (otherwise(429), REFUSALS, Outcome.UNKNOWN, "status 429 instead of 401"),
        (otherwise(500), REFUSALS, Outcome.UNKNOWN, "status 500 instead of 401"),
        (otherwise(401, "QUERY"), REFUSALS, Outcome.FAIL, "the request reached the API (status 401)"),
        (otherwise(401, X_M2M_Reason="unknown_key"), REFUSALS, Outcome.UNKNOWN, "refused for another reason than"),
        (otherwise(401, LARGE), REFUSALS, Outcome.UNKNOWN, "more than 64 KiB"),
        (unreachable, f"{REFUSALS} internal_paths", Outcome.UNKNOWN, "ReadError"),
        (unreachable, "good_token", Outcome.FAIL, "ReadError"),
        (otherwise(403, refused=False), "good_token", Outcome.FAIL, "status 403 instead of 200"),
        (otherwise(403, refused=False), "forged_headers", Outcome.UNKNOWN, "status 403"),
        (otherwise(200, "hello", refused=False), "good_token", Outcome.FAIL, "answer is not from the echo"),
        (
            otherwise(200, '{"query": "canary=old", "headers": []}', refused=False),
            "good_token", Outcome.FAIL, "the answer is not from the echo endpoint",
        ),
        (echoing(("X-M2M-Client-ID", "canary")), "good_token", Outcome.FAIL, "did not see X-M2M-Client-ID"),
        (echoing(("x_m2m_role", "")), "good_token", Outcome.PASS, ""),
        (echoing(("X-M2M-Role", "a"), ("X-M2M-Role", "b")), "good_token", Outcome.FAIL, "did not see X-M2M-Role"),
        (echoing(("X_M2M_Role", "")), "forged_headers", Outcome.FAIL, "a forged X-M2M-Role reached the API"),
        (at_path("/metrics", text="m2m_verifier_build_info 1"), "internal_paths", Outcome.FAIL, "/metrics leads to"),
        (at_path("/_m2m", headers={"X-M2M-Client-ID": ""}), "internal_paths", Outcome.FAIL, "/_m2m leads to"),
        # Traefik, Caddy and Envoy hand on the headers of a refusal.
        (otherwise(401, X_M2M_Client_ID=""), " ".join(CHECKS), Outcome.PASS, ""),
        (otherwise(403, refused=False, X_M2M_Client_ID=""), "internal_paths", Outcome.PASS, ""),
    ],
)  # fmt: skip
def test_an_answer_means(handler: Handler, checks: str, outcome: Outcome, cause: str) -> None:
    found = results(handler)

    assert {check: found[check].outcome for check in checks.split()} == dict.fromkeys(checks.split(), outcome)
    assert all(cause in found[check].cause for check in checks.split())


def test_without_a_good_token_only_what_needs_none_is_checked() -> None:
    found = results(guarded, good=None)
    passed = {check for check, result in found.items() if result.outcome is Outcome.PASS}

    assert passed == {"no_token", "expired_token", "internal_paths"}
    assert {found[check] for check in CHECKS if check not in passed} == {Result(Outcome.UNKNOWN, "token: none")}


@pytest.mark.parametrize(
    ("changes", "environment", "cause"),
    [
        ({"ca_file": "missing.pem"}, {}, "/nowhere/missing.pem: No such file or directory"),
        ({}, {"HTTPS_PROXY": "ftp://proxy.example"}, "HTTPS_PROXY: a proxy must be http or https"),
    ],
)
def test_without_a_connection_every_check_is_unknown_and_has_no_success(
    changes: dict[str, str], environment: dict[str, str], cause: str
) -> None:
    canary = Canary(settings_of(**changes), clock=Clock(NOW), environment=environment)
    asyncio.run(canary.round())
    samples = {sample.name: sample.value for family in canary.collect() for sample in family.samples}

    assert {check for check, found in canary.results.items() if found.outcome is Outcome.UNKNOWN} == set(CHECKS)
    assert cause in str(canary.results["no_token"])
    assert canary.status == 2
    assert "m2m_verifier_canary_check_success" not in samples
    assert samples["m2m_verifier_canary_check_unknown"] == 1
    assert samples["m2m_verifier_canary_last_run_timestamp_seconds"] == NOW
