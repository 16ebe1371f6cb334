"""What the canary checks in a round, each through the real proxy."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urljoin

import httpx

from verifier.keys.fetch import FetchError
from verifier.reasons import Reason
from verifier.tools.canary import echo
from verifier.tools.canary.exchange import Answer, exchange
from verifier.tools.canary.settings import CLIENT_ID, Settings
from verifier.tools.canary.tokens import Tokens

CHECKS = ("no_token", "forged_headers", "expired_token", "wrong_signature", "good_token", "internal_paths")
"""The closed set of names: metric label, log and runbook use the same words."""

# What only the verifier's own endpoints answer: /metrics, /health.
_OF_THE_VERIFIER = (b"m2m_verifier_", b'"service":"m2m-verifier"')

Headers = Sequence[tuple[str, str]]


class Outcome(StrEnum):
    """Of a check."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It could not be checked: a token is missing, or the proxy failed closed."""


class Result(NamedTuple):
    """Of a check, with a cause that holds no token and no header value."""

    outcome: Outcome
    cause: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, self))


PASSED = Result(Outcome.PASS)


def _failed(cause: str) -> Result:
    return Result(Outcome.FAIL, cause)


def _unknown(cause: str) -> Result:
    return Result(Outcome.UNKNOWN, cause)


class Round:
    """The checks of one round; ``through`` is a client for the origin of the URL."""

    def __init__(self, settings: Settings, tokens: Tokens, through: httpx.AsyncClient) -> None:
        self._settings = settings
        self._tokens = tokens
        self._through = through

    async def results(self) -> dict[str, Result]:
        """All checks, side by side; by name."""
        checks = (self.no_token(), self.forged_headers(), self.expired_token(), self.wrong_signature())
        found = await asyncio.gather(*map(_answered, (*checks, self.good_token(), self.internal_paths())))
        return dict(zip(CHECKS, found, strict=True))

    async def no_token(self) -> Result:
        """Without a token: 401."""
        return await self._refused(Reason.MISSING_TOKEN)

    async def expired_token(self) -> Result:
        """With a token that was good before it expired: 401."""
        token = self._tokens.expired
        if token is None:
            return _unknown(self._tokens.missing_expired)
        return await self._refused(Reason.EXPIRED, token.text)

    async def wrong_signature(self) -> Result:
        """With the good token, its signature changed: 401."""
        token = self._tokens.good
        if token is None:
            return _unknown(self._tokens.missing_good)
        return await self._refused(Reason.BAD_SIGNATURE, token.with_wrong_signature())

    async def good_token(self) -> Result:
        """With the good token: 200, and the API sees its identity."""
        token = self._tokens.good
        if token is None:
            return _unknown(self._tokens.missing_good)
        try:
            answer, query = await self._ask(token.text)
        except FetchError as error:
            return _failed(str(error))
        if answer.status != 200:
            if answer.status == 401:
                self._tokens.forget_good()
            return _failed(f"status {answer.status} instead of 200")
        return self._has_identity(answer, query)

    async def forged_headers(self) -> Result:
        """Identity headers of the client's own open nothing, and do not reach the API in any spelling."""
        names, forged = self._settings.identity, f"forged-{secrets.token_hex(8)}"
        plain = [(name, forged) for name in names]
        underscores = [(name.replace("-", "_"), forged) for name in names]
        results = [await self._refused(Reason.MISSING_TOKEN, None, plain)]
        token = self._tokens.good
        if token is None:
            return _worst([*results, _unknown(self._tokens.missing_good)])
        for headers in (plain, [*plain, *plain], underscores):
            answer, query = await self._ask(token.text, headers)
            if answer.status == 400 and headers is underscores:
                continue  # some proxies refuse such names
            if answer.status == 200:
                results.append(self._has_identity(answer, query, forged))
            else:
                results.append(_unknown(f"status {answer.status}"))
        return _worst(results)

    async def internal_paths(self) -> Result:
        """The verifier's own paths are not reachable: the API or nothing answers there."""
        token = self._tokens.good.text if self._tokens.good is not None else None
        for path in self._settings.internal_paths:
            answer, _ = await self._ask(token, url=urljoin(self._settings.url, path))
            is_ours = any(text in answer.body for text in _OF_THE_VERIFIER)
            if CLIENT_ID in answer.headers:
                # Some proxies hand on the whole answer of a refusal: then a path that does not exist has it too.
                ordinary, _ = await self._ask(token, url=urljoin(self._settings.url, f"/{secrets.token_hex(16)}"))
                is_ours = is_ours or CLIENT_ID not in ordinary.headers
            if is_ours:
                return _failed(f"{path} leads to the verifier")
        return PASSED

    async def _ask(self, token: str | None, headers: Headers = (), url: str = "") -> tuple[Answer, str]:
        """The answer, and the query that only this request had."""
        query = f"canary={secrets.token_hex(16)}"
        bearer = [] if token is None else [("Authorization", f"Bearer {token}")]
        answer = await exchange(self._through, f"{url or self._settings.url}?{query}", [*headers, *bearer])
        return answer, query

    async def _refused(self, reason: Reason, token: str | None = None, headers: Headers = ()) -> Result:
        """Whether the answer is a 401 that does not come from the API."""
        answer, query = await self._ask(token, headers)
        if query.encode() in answer.body:
            return _failed(f"the request reached the API (status {answer.status})")
        if answer.status != 401:
            fails_closed = answer.status >= 500 or answer.status == 429
            return (_unknown if fails_closed else _failed)(f"status {answer.status} instead of 401")
        # Proxies that pass the reason on show whether it was refused for what this check is about.
        given = answer.headers.get("X-M2M-Reason") or reason
        return PASSED if given == reason else _unknown(f"refused for another reason than {reason}")

    def _has_identity(self, answer: Answer, query: str, forged: str = "") -> Result:
        """Whether the API saw the identity that the settings name, each header once, and nothing ``forged``."""
        seen = echo.parse(answer.body, query)
        if seen is None:
            return _failed("status 200, but the answer is not from the echo endpoint")
        for name, wanted in self._settings.identity.items():
            values = [value for header, value in seen if header == echo.normal(name)]
            if forged and any(forged in value for value in values):
                return _failed(f"a forged {name} reached the API")
            if len(values) > 1 or (wanted is not None and "".join(values) != wanted):
                return _failed(f"the API did not see {name} as identity has it")
        return PASSED


async def _answered(check: Awaitable[Result]) -> Result:
    try:
        return await check
    except FetchError as error:
        return _unknown(str(error))


def _worst(results: Iterable[Result]) -> Result:
    """A failure before what is unknown, and that before a success."""
    order = (Outcome.FAIL, Outcome.UNKNOWN, Outcome.PASS)
    return min(results, key=lambda result: order.index(result.outcome))
