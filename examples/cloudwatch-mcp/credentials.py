"""Temporary AWS credentials of the role that a caller has."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cachetools import TLRUCache

DURATION = 900
"""Seconds that credentials are valid: the least that STS gives."""

EARLY = 120
"""Seconds before their end from which credentials are no longer used: a request takes some of them."""

MAX_KEPT = 1000
"""Credentials that are kept, the last used ones: a few KB each."""

MAX_SESSION_NAME, MAX_TAG = 64, 256  # characters


@dataclass(frozen=True)
class Caller:
    """Who calls, as the verifier says; nginx sets these headers, and removes what a client sends under their names."""

    issuer: str
    client_id: str
    role: str
    token: str = field(repr=False, compare=False)
    """The caller's own token, which only AssumeRoleWithWebIdentity needs."""

    @classmethod
    def of(cls, headers: Mapping[str, str] | None) -> "Caller":
        """The caller of a request.

        Raises:
            PermissionError: the verifier named no client or no role, or was not asked.
        """
        given = headers or {}
        issuer, client_id, role = (given.get(f"x-m2m-{name}", "") for name in ("issuer", "client-id", "role"))
        if not (issuer and client_id and role):
            raise PermissionError("the request has no X-M2M-Issuer, X-M2M-Client-ID or X-M2M-Role")
        return cls(issuer, client_id, role, given.get("authorization", "").partition(" ")[2])


@dataclass(frozen=True)
class Credentials:
    """What STS gave. `expires` is in seconds since the epoch."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires: float

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Credentials":
        """From the answer of STS."""
        given = answer["Credentials"]
        keys = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
        return cls(*keys, given["Expiration"].timestamp())


def session_name(client_id: str) -> str:
    """The client id as a RoleSessionName, which CloudTrail shows. A changed one ends in a hash: no two share one."""
    name = re.sub(r"[^A-Za-z0-9_+=,.@-]", "-", client_id)
    if name == client_id and 2 <= len(name) <= MAX_SESSION_NAME:
        return name
    digest = hashlib.sha256(client_id.encode()).hexdigest()[:12]
    return f"{name[: MAX_SESSION_NAME - len(digest) - 1]}-{digest}"


def tag_value(text: str) -> str:
    """A text as the value of a session tag."""
    return re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "-", text)[:MAX_TAG]


def _session(caller: Caller) -> dict[str, Any]:
    return {"RoleArn": caller.role, "RoleSessionName": session_name(caller.client_id), "DurationSeconds": DURATION}


def by_assume_role(sts: Any) -> Callable[[Caller], Credentials]:
    """The server's own identity assumes the role; the tags say for whom. `sts` is a boto3 client.

    The trust policy of the role needs sts:AssumeRole and sts:TagSession for the server's identity.
    """

    def fetch(caller: Caller) -> Credentials:
        tags = {"client_id": caller.client_id, "issuer": caller.issuer}
        listed = [{"Key": name, "Value": tag_value(value)} for name, value in tags.items()]
        return Credentials.of(sts.assume_role(**_session(caller), Tags=listed))

    return fetch


def by_web_identity(sts: Any) -> Callable[[Caller], Credentials]:
    """The caller's own token assumes the role: the server needs no identity. `sts` is an unsigned boto3 client.

    IAM must know the issuer as an OIDC provider, and the token's `aud` as one of its client ids.
    """

    def fetch(caller: Caller) -> Credentials:
        return Credentials.of(sts.assume_role_with_web_identity(**_session(caller), WebIdentityToken=caller.token))

    return fetch


class RoleCredentials:
    """Credentials for each client and role until shortly before they expire; no client gets those of another.

    `clock` gives seconds since the epoch.
    """

    def __init__(self, fetch: Callable[[Caller], Credentials], clock: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._kept: TLRUCache[tuple[str, str, str], Credentials] = TLRUCache(
            MAX_KEPT, ttu=lambda _, credentials, __: credentials.expires - EARLY, timer=clock
        )
        self._lock = threading.Lock()  # tools run in threads

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, caller: Caller) -> Credentials:
        """The caller's credentials, fetched where there are none."""
        key = caller.issuer, caller.client_id, caller.role
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            known = self._fetch(caller)
            with self._lock:
                self._kept[key] = known
        return known
