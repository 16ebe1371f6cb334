"""What the unit tests pass in: keys, tokens, a clock, a network, and an event loop whose time jumps."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import selectors
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from tests.minting import ABSENT as ABSENT
from tests.minting import SigningKey as SigningKey
from tests.minting import b64 as b64
from tests.minting import edited
from verifier.decision import Decision
from verifier.identity import IDENTITY_HEADERS, Principal, VerifiedToken, encode_headers, header_lines
from verifier.keys.fetch import Fetched, FetchError
from verifier.keys.jwk import Key
from verifier.keys.sets import KeySet
from verifier.observe.audit import Audit
from verifier.observe.batch import Observation
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest
from verifier.tokens.profiles import PROFILES, Profile
from verifier.tokens.verify import Issuer, TokenVerifier


def show(value: object) -> str:
    """A test id: the repr without addresses, because pytest-xdist needs the same ids in each process."""
    return re.sub(r" at 0x\w+", "", repr(value))


def by_reason(table: Mapping[Reason, Iterable[Any]]) -> list[tuple[Any, Reason]]:
    """Pairs of a case and its reason, from a table of cases by reason."""
    return [(case, reason) for reason, group in table.items() for case in group]


def rejected(call: Callable[..., object], *args: Any, **options: Any) -> Rejected:
    """The rejection that a call raises."""
    with pytest.raises(Rejected) as caught:
        call(*args, **options)
    return caught.value


def outcome(call: Callable[..., object], *args: Any, **options: Any) -> Reason:
    """The reason of the rejection that a call raises, OK where it raises none."""
    try:
        call(*args, **options)
    except Rejected as rejection:
        return rejection.reason
    return Reason.OK


def memory_taken(fill: Callable[[], object]) -> int:
    """The bytes that a call leaves in use."""
    gc.collect()
    tracemalloc.start()
    try:
        fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
JWKS_URL = "https://issuer.example/keys"

Jwk = dict[str, Any]
Handler = Callable[[str], Any]


def jwks(*keys: SigningKey | Jwk) -> bytes:
    """A JWK Set."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, SigningKey) else key for key in keys]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a machine's token, generic profile, with ``changes``; a value of ABSENT leaves one out."""
    ordinary = {
        "iss": ISSUER, "sub": "etl", "client_id": "etl", "aud": "api", "scope": "read write",
        "iat": int(NOW), "exp": int(NOW) + 3600, "jti": "token-1",
    }  # fmt: skip
    return edited(ordinary, changes)


class Clock:
    """Seconds since the epoch, as far as a test says."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeFetch:
    """A network: answers by URL, counts, and can fail or hang.

    An answer is bytes, a Fetched, an exception to raise, or a function of the URL that gives one of these.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self.answers: dict[str, Any] = dict(answers or {})
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        """Seconds by the loop's time."""
        self.running = 0
        self.open = asyncio.Event()
        self.open.set()

    def hang(self) -> None:
        """Answer nothing from now on, until ``open`` is set again."""
        self.open.clear()

    async def __call__(self, url: str) -> Fetched:
        self.asked.append(url)
        self.asked_at.append(asyncio.get_running_loop().time())
        self.running += 1
        try:
            await asyncio.sleep(0)
            await self.open.wait()
        finally:
            self.running -= 1
        answer = self.answers.get(url, FetchError("status 404"))
        if callable(answer):
            answer = answer(url)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Fetched) else Fetched(answer, None)


class _JumpingSelector(selectors.DefaultSelector):
    """Where nothing is ready, the loop's time jumps to its next timer."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self.now = 0.0
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None and timeout <= 0 else self._grace)
        if not ready:
            if timeout is None and not self._grace:
                raise RuntimeError("the test waits for something that never happens")
            self.now += max(timeout or 0.0, 0.0)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that sleeps no real second: hours of refreshes pass in milliseconds, in their exact order.

    ``grace`` is how many real seconds sockets get before the time jumps. Threads' work is done on the spot.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._jumping = _JumpingSelector(grace)
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def loop_clock() -> float:
    """Seconds since the epoch by the running loop's time."""
    return NOW + asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


def make_issuer(keys: KeySet | Iterable[Key], *, profile: str | Profile = "generic", **changes: Any) -> Issuer:
    """An issuer as the configuration would build it."""
    given: dict[str, Any] = {
        "name": "lab",
        "urls": (ISSUER,),
        "key_set_url": JWKS_URL,
        "jwks_file": None,
        "profile": PROFILES[profile] if isinstance(profile, str) else profile,
        "algorithms": frozenset({"RS256", "ES256", "EdDSA"}),
        "audience": frozenset({"api"}),
    } | changes
    return Issuer(**given, keys=KeySet(keys) if isinstance(keys, Iterable) else keys)


def make_verifier(*issuers: Issuer, **changes: Any) -> TokenVerifier:
    """A verifier of these issuers' tokens, without roles and mapped claims."""
    given: dict[str, Any] = {"clock": Clock(), "leeway": 10.0, "role_of": lambda *_: "", "mapped_headers": {}}
    return TokenVerifier(issuers, **(given | changes))


def make_principal(
    scope: str = "read",
    *,
    issuer: str = "lab",
    client_id: str = "etl",
    role: str = "",
    prefix: str = "",
    listed: bool = True,
) -> Principal:
    """A verified caller."""
    granted = scope.split()
    bare = [held.removeprefix(prefix) for held in granted if prefix and held.startswith(prefix)]
    lines = header_lines(encode_headers([*zip(IDENTITY_HEADERS, (client_id, scope, role, issuer), strict=True)]))
    scopes = frozenset(granted + bare)
    return Principal(issuer, client_id, scope, scopes, prefix, role, listed, lines)


def make_token(
    principal: Principal | None = None, *, exp: float = NOW + 3600, jti: str = "token-1", checked_at: float = NOW
) -> VerifiedToken:
    """A verified token. Its key verifies nothing: it is there to be retired."""
    return VerifiedToken(principal or make_principal(), Key("kid", "identity", {}), exp, jti, checked_at)


async def ask_app(app: ASGIApp, path: str, headers: Iterable[tuple[str, bytes]]) -> tuple[int, dict[str, str]]:
    """Status and headers of an application's answer to a subrequest without a body."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": query.encode(), "client": None,
        "headers": [(name.encode(), value) for name, value in headers],
    }  # fmt: skip
    await app(scope, None, send)  # type: ignore[arg-type] # auth paths read no body
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def observation(time: float, request: AuthRequest, decision: Decision, seconds: float) -> Observation:
    """What observers get of a request and its decision."""
    observed = request.method, request.url, request.request_id, request.traceparent, request.remote_addr
    return Observation(time, *observed, decision, seconds)


def audit_lines(
    folder: Path, batches: Iterable[Sequence[Observation]], on_drop: Callable[[int], None] = lambda _: None
) -> list[bytes]:
    """What is written of batches that were observed before the thread started."""
    with (folder / "audit").open("w+b") as file:  # a pipe would not hold them
        audit = Audit("all", descriptor=file.fileno(), on_drop=on_drop)
        for batch in batches:
            audit.observe(batch)
        audit.start()
        audit.stop()
        file.seek(0)
        return file.readlines()
