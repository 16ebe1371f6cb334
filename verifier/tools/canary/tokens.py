"""The canary's tokens: a good one, and an earlier good one that has expired since."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from verifier import strict_json
from verifier.clock import Clock
from verifier.keys.fetch import FetchError
from verifier.tools.canary.exchange import client, exchange
from verifier.tools.canary.settings import Grant, Settings

SIZE_LIMIT = 16 * 1024  # bytes of a token or a secret

_JWS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class TokenError(Exception):
    """There is no token. The message never quotes a token, a secret or an answer."""


class Token(NamedTuple):
    """A token and the time of its ``exp`` (RFC 7519 section 4.1.4), in seconds since the epoch."""

    text: str
    expires: float

    def with_wrong_signature(self) -> str:
        """The same token, but the first six bits of its signature differ."""
        signed, _, signature = self.text.rpartition(".")
        return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


class Tokens:
    """Renews tokens before a round. It keeps three at most: good, expired, and one that has to expire."""

    def __init__(self, settings: Settings, clock: Clock, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._clock = clock
        self._environment = environment
        self._expiring: Token | None = None
        self.good: Token | None = None
        self.expired: Token | None = None
        self.missing_good = self.missing_expired = ""
        """Why there is none."""

    async def renew(self) -> None:
        """Fetch a good token where the one that there is expires soon, and look which one has expired."""
        self.missing_good, self.missing_expired = "", "no token of this canary has expired yet"
        try:
            await self._renew_good()
        except (TokenError, FetchError) as error:
            self.missing_good = f"token: {error}"
            if self.good is not None and self.good.expires <= self._clock():
                self._retire()
        try:
            self._look_for_expired()
        except TokenError as error:
            self.expired, self.missing_expired = None, f"expired_token_file: {error}"

    def forget_good(self) -> None:
        """The good token was refused: the next round needs another, and this one proves nothing when it expires."""
        self.good = None

    async def _renew_good(self) -> None:
        grant, file, now = self._settings.token, self._settings.token_file, self._clock()
        if file is not None:
            fresh = _read(file)
        elif grant is not None and (self.good is None or self.good.expires - now < 2 * self._settings.interval):
            fresh = await _granted(grant, self._environment)
        else:
            return
        if fresh.expires <= now:
            raise TokenError("the new token has expired")
        if fresh != self.good:
            self._retire()
            self.good = fresh

    def _retire(self) -> None:
        self._expiring = self._expiring or self.good
        self.good = None

    def _look_for_expired(self) -> None:
        latest = self._clock() - self._settings.leeway
        if self._settings.expired_token_file is not None:
            self.expired = _read(self._settings.expired_token_file)
            if self.expired.expires > latest:
                raise TokenError("the token has not expired yet")
        elif self._expiring is not None and self._expiring.expires <= latest:
            self.expired, self._expiring = self._expiring, None


async def _granted(grant: Grant, environment: Mapping[str, str]) -> Token:
    """A token for the client's secret (RFC 6749 section 4.4). Raises TokenError and FetchError."""
    secret = _content(grant.client_secret_file)
    form = {"grant_type": "client_credentials", **grant.parameters}
    if grant.scope:
        form["scope"] = " ".join(grant.scope)
    headers = []
    if grant.auth == "basic":
        pair = f"{quote(grant.client_id, safe='')}:{quote(secret, safe='')}"  # RFC 6749 section 2.3.1
        headers.append(("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"))
    else:
        form |= {"client_id": grant.client_id, "client_secret": secret}
    async with await client(grant.url, grant.ca_file, environment) as through:
        answer = await exchange(through, grant.url, headers, form)
    if answer.status != 200:
        raise TokenError(f"the token endpoint answers {answer.status}")
    try:
        text = strict_json.parse_object(answer.body)["access_token"]
    except (ValueError, KeyError):
        raise TokenError("the token endpoint answers without an access_token") from None
    return _parsed(text)


def _read(path: Path) -> Token:
    return _parsed(_content(path))


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
            text = content.decode("ascii").strip()
    except OSError as error:
        raise TokenError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokenError(f"{path}: is not ASCII text") from None
    if not text or len(content) > SIZE_LIMIT:
        raise TokenError(f"{path}: is empty, or larger than {SIZE_LIMIT // 1024} KiB")
    return text


def _parsed(text: object) -> Token:
    """The token and its ``exp``; whether it is valid is for the verifier to say."""
    found = _JWS.fullmatch(text) if isinstance(text, str) and len(text) <= SIZE_LIMIT else None
    if found is None:
        raise TokenError("is not a JWT")
    try:
        expires = strict_json.parse_object(base64.urlsafe_b64decode(found[2] + "=="))["exp"]
    except (ValueError, KeyError, binascii.Error):
        raise TokenError("is a JWT without exp") from None
    if not isinstance(expires, int | float) or isinstance(expires, bool):
        raise TokenError("is a JWT whose exp is no number")
    return Token(found[0], float(expires))
