"""The same request gets the same reason in every dialect, and what only another dialect reads changes nothing."""

from __future__ import annotations

import re

import pytest

from . import hostile_requests
from .cases import Case
from .running_app import RunningApp, head, request_bytes
from .tokens import Token

_URL = re.compile(rb"(https?)://([^/]*)(/[!\"$-~]*)")
_METHODS = (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")


def translatable(case: Case) -> bool:
    """Whether a proxy could ask the same in another dialect: with a whole URL, a method and no header of one."""
    request = case.request
    names = [name for name, _ in request.headers]
    whole = request.url is not None and _URL.fullmatch(request.url) and request.method in _METHODS
    plain = request_bytes(request.path, request.query, request.pairs(case.token)) is not None
    return bool(whole) and plain and not any(name.startswith((b"x-original-", b"x-forwarded-")) for name in names)


SAME = [case for case in hostile_requests.TABLE if case.app == "main" and translatable(case)]
PLAIN = [case for case in SAME if not case.request.query and re.fullmatch("/verify(/[A-Za-z_-]+)?", case.request.path)]
"""Under ext-authz the query is the original request's, and the policy's name is not decoded."""


def common_pairs(case: Case) -> list[tuple[bytes, bytes]]:
    """The headers that each dialect has."""
    names = (b"x-original-url", b"x-original-method")
    return [pair for pair in case.request.pairs(case.token) if pair[0] not in names]


def test_enough_of_the_table_can_be_asked_in_every_dialect() -> None:
    assert len(SAME) > len(PLAIN) > 100


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.name)
def test_dialects_with_headers_of_their_own_give_the_same_reason(case: Case, main: RunningApp) -> None:
    scheme, host, uri = _URL.fullmatch(case.request.url or b"").groups()  # type: ignore[union-attr]
    method = case.request.method or b""
    forwarded = {b"method": method, b"proto": scheme, b"host": host, b"uri": uri}
    asked = {
        "/forward-auth": [(b"x-forwarded-" + name, value) for name, value in forwarded.items()],
        "/gateway-fabric": [(b"method", method), (b"host", host), (b"path", uri)],
    }
    for prefix, pairs in asked.items():
        path = case.request.path.replace("/verify", prefix, 1)
        assert main.send([*common_pairs(case), *pairs], path, case.request.query).reason == case.reason, prefix


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_ext_authz_gives_the_same_reason(case: Case, main: RunningApp) -> None:
    _, host, uri = _URL.fullmatch(case.request.url or b"").groups()  # type: ignore[union-attr]
    policy = case.request.path.removeprefix("/verify").removeprefix("/") or "default"
    line = b"%b /ext-authz/%b%b HTTP/1.1" % (case.request.method or b"", policy.encode(), uri)

    assert main.run(main.exchange(head(line, [(b"host", host), *common_pairs(case)]))).reason == case.reason


NOT_GIVEN = {
    "/verify": [(b"x-forwarded-method", b"GET"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-uri", b"/db/x")],
    "/forward-auth": [(b"x-original-method", b"GET"), (b"x-original-url", b"https://api.example.com/db/x")],
    "/gateway-fabric": [(b"x-original-method", b"GET"), (b"x-original-url", b"https://api.example.com/db/x")],
    "/ext-authz": [(b"x-original-url", b"https://api.example.com/db/x"), (b"x-forwarded-uri", b"/db/x")],
}


@pytest.mark.parametrize("prefix", NOT_GIVEN)
def test_a_policy_with_rules_never_guesses_what_the_proxy_did_not_say(prefix: str, main: RunningApp) -> None:
    token = b"Bearer " + Token(claims={"scope": "read write admin"}).encode()
    pairs = [(b"authorization", token), *NOT_GIVEN[prefix]]

    assert main.send(pairs, f"{prefix}/api").reason == "bad_auth_request"


@pytest.mark.parametrize("host", [b"h/db", b"/db", b"h/db/x?"])
def test_a_slash_in_the_host_does_not_move_the_path_under_a_rule(host: bytes, main: RunningApp) -> None:
    token = [(b"authorization", b"Bearer " + Token(claims={"scope": "read write admin"}).encode())]
    forwarded = [(b"x-forwarded-method", b"GET"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", host)]
    asked = {
        "/forward-auth/api": [*forwarded, (b"x-forwarded-uri", b"/secret")],
        "/gateway-fabric/api": [(b"method", b"GET"), (b"host", host), (b"path", b"/secret")],
        "/ext-authz/api/secret": [(b"host", host)],
    }

    assert {main.send(token + pairs, path).reason for path, pairs in asked.items()} == {"ambiguous_path"}
