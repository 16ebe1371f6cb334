"""What is the same in every dialect: what is read, what a client may forge, and what changes the meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pytest

from verifier.proxies import ext_authz, forward_auth, gateway_fabric, nginx
from verifier.proxies.fields import Pairs
from verifier.request import AuthRequest

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PEER = "10.0.0.1"
ASKED = AuthRequest(
    "api", b"scope=read", b"Bearer abc", "POST", b"https://api.example/a/../b?x=%2f", request_id="id-1",
    remote_addr="192.0.2.1", body_announced=False, method_override=False, traceparent=TRACE.encode(),
)  # fmt: skip


class Dialect(NamedTuple):
    """An ordinary auth request in a dialect, and the names of headers that may come with it."""

    parse: Callable[[Pairs], AuthRequest]
    own: dict[str, str]
    """Headers that only this dialect has."""
    once: str
    forged: str
    asked: AuthRequest = ASKED

    def read(self, *further: tuple[str, str], without: Collection[str] = ()) -> AuthRequest:
        """The ordinary request with further headers, or without some."""
        ordinary = {"Authorization": "Bearer abc", "X-Request-ID": "id-1", "Traceparent": TRACE, **self.own}
        given = [(name, value) for name, value in ordinary.items() if name not in without]
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in (*given, *further)]
        request = self.parse(pairs)
        assert request.headers == pairs
        return replace(request, headers=())


NGINX = Dialect(
    partial(nginx.parse, "api", b"scope=read", peer=PEER),
    {"X-Original-Method": "POST", "X-Original-URL": "https://api.example/a/../b?x=%2f", "X-Real-IP": "192.0.2.1"},
    once="authorization x-original-url x-original-method",
    forged="""X-Original-URI X-Forwarded-Uri X-Forwarded-Method X-Forwarded-Host X-Forwarded-Proto X-Forwarded-For
        X-M2M-Role X-M2M-Client-ID X-M2M-Policy Proxy-Authorization Host Cookie Accept Method Path""",
)  # fmt: skip
FORWARD_AUTH = Dialect(
    partial(forward_auth.parse, "api", b"scope=read", peer=PEER),
    {
        "X-Forwarded-Method": "POST", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "api.example",
        "X-Forwarded-Uri": "/a/../b?x=%2f", "X-Forwarded-For": "192.0.2.9, 192.0.2.1",  # the last is the proxy's
    },
    once="authorization x-forwarded-method x-forwarded-proto x-forwarded-host x-forwarded-uri",
    forged="""X-Original-URL X-Original-Method X-Original-URI X-Forwarded-Port X-Forwarded-Prefix X-Real-IP X-M2M-Role
        Forwarded Host Proxy-Authorization X-Forwarded_Uri""",
)  # fmt: skip
GATEWAY_FABRIC = Dialect(
    partial(gateway_fabric.parse, "api", b"scope=read", peer=PEER),
    {"Host": "api.example", "Method": "POST", "Path": "/a/../b?x=%2f"},
    once="authorization host method path",
    forged="X-Original-URL X-Original-Method X-Forwarded-Uri X-Forwarded-Method X-Real-IP X-M2M-Role",
    asked=replace(ASKED, remote_addr=PEER),
)
EXT_AUTHZ = Dialect(
    partial(ext_authz.parse, "POST", b"/ext-authz/api/a/../b?x=%2f", peer=PEER),
    {"Host": "api.example"},
    once="authorization host",
    forged="""X-Original-URL X-Original-Method X-Forwarded-Method X-Forwarded-Uri X-Forwarded-Host X-Forwarded-Proto
        X-Forwarded-For X-Real-IP X-Envoy-Original-Path X-M2M-Role :path""",
    asked=replace(ASKED, remote_addr=PEER, query=b""),
)
BY_HEADERS = {"nginx": NGINX, "forward-auth": FORWARD_AUTH, "gateway-fabric": GATEWAY_FABRIC}
DIALECTS = {**BY_HEADERS, "ext-authz": EXT_AUTHZ}
in_each = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


@in_each
def test_an_auth_request_is_parsed(dialect: Dialect) -> None:
    assert dialect.read() == dialect.asked


@pytest.mark.parametrize("dialect", BY_HEADERS.values(), ids=BY_HEADERS)
def test_without_headers_everything_is_empty_and_the_peer_is_the_remote_address(dialect: Dialect) -> None:
    assert dialect.parse([]) == AuthRequest("api", b"scope=read", None, "", b"", remote_addr=PEER, headers=[])


@in_each
def test_a_header_that_a_client_may_forge_changes_nothing_once_or_twice(dialect: Dialect) -> None:
    forged = [[(name, "Bearer /forged")] * times for name in dialect.forged.split() for times in (1, 2)]

    assert [headers for headers in forged if dialect.read(*headers) != dialect.asked] == []


@in_each
def test_a_second_header_that_would_leave_open_which_counts_is_noticed(dialect: Dialect) -> None:
    assert all(dialect.read((name, "x")).repeated == {name} for name in dialect.once.split())


@in_each
def test_a_header_that_names_another_method_is_noticed(dialect: Dialect) -> None:
    names = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]

    assert [dialect.read((name, "5")) for name in names] == [replace(dialect.asked, method_override=True)] * 3


@in_each
def test_a_body_is_noticed_and_only_envoy_sends_a_length_of_zero_without_one(dialect: Dialect) -> None:
    headers = [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Content-Length", "0")]

    assert [dialect.read(header).body_announced for header in headers] == [True, True, dialect is not EXT_AUTHZ]


@in_each
def test_a_repeated_traceparent_names_no_trace_and_refuses_nothing(dialect: Dialect) -> None:
    assert dialect.read(("Traceparent", TRACE)) == replace(dialect.asked, traceparent=b"")


@in_each
def test_each_dpop_header_is_a_proof(dialect: Dialect) -> None:
    assert dialect.read(("DPoP", "a"), ("X-DPoP", "b"), ("dpop", "c")).proofs == (b"a", b"c")
