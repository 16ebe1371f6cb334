"""The one bearer token of a request, and its trace."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from tests.unit.support import outcome
from verifier.reasons import Reason
from verifier.request import AuthRequest, Credentials, credentials, is_url, trace_id_of
from verifier.tokens.jws import parse_compact


def asked(authorization: bytes | None, *repeated: str) -> AuthRequest:
    return AuthRequest("default", b"", authorization, "GET", b"https://h/", frozenset(repeated))


def reason(request: AuthRequest) -> Reason:
    """Of the token's form, wherever it is looked at."""
    return outcome(lambda: parse_compact(credentials(request).token))


BEARER = [
    b"Bearer a.b.c", b"bearer a.b.c", b"BEARER a.b.c", b"Bearer   a.b.c", b" Bearer a.b.c", b"\tBearer a.b.c",
    b"Bearer a.b.c ", b"Bearer a.b.c\t \t",
]  # fmt: skip
DPOP = [b"DPoP a.b.c", b"dpop  a.b.c", b" DPOP a.b.c "]


@pytest.mark.parametrize("value", BEARER + DPOP)
def test_the_scheme_counts_in_any_case_and_white_space_around_the_value_does_not(value: bytes) -> None:
    assert credentials(asked(value)) == Credentials(value in DPOP, b"a.b.c")


def test_nothing_but_spaces_is_taken_off_a_token() -> None:
    assert credentials(asked(b"Bearer Xey.Bearer.yX")).token == b"Xey.Bearer.yX"


@pytest.mark.parametrize("value", [None, b"", b"Basic a", b"DPoPx a.b.c", b"Bearerx a.b.c", b"Bearer\ta.b.c", b"a.b.c"])
def test_no_header_or_another_scheme_is_a_missing_token(value: bytes | None) -> None:
    assert reason(asked(value)) is Reason.MISSING_TOKEN


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer a.b.c d.e.f", b"Bearer a.b.c,d.e.f", b"Bearer a.b.c, Bearer d.e.f", b"Bearer Bearer a.b.c",
        b'Bearer "a.b.c"', b"Bearer \xff", b"Bearer \ta.b.c", b"Bearer a.b.c\x0b", b"Bearer", b"Bearer ", b"DPoP",
    ],
)  # fmt: skip
def test_two_tokens_or_a_decorated_one_are_malformed(value: bytes) -> None:
    assert reason(asked(value)) is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize("value", [b"Bearer a.b.c", b"Basic abc"])
def test_two_authorization_headers_are_malformed(value: bytes) -> None:
    assert reason(asked(value, "authorization")) is Reason.MALFORMED_TOKEN


def test_what_a_proxy_does_not_send_is_empty() -> None:
    assert astuple(AuthRequest("api", b"", None, "", b""))[5:] == (frozenset(), "", "", False, False, (), (), b"")


@pytest.mark.parametrize(("url", "absolute"), [(b"http://h/", True), (b"https://", True), (b"/a", False), (b"", False)])
def test_an_original_url_is_absolute(url: bytes, absolute: bool) -> None:
    assert is_url(url) is absolute


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("version", ["00", "01", "cc", "fe"])
def test_a_valid_traceparent_names_its_trace_whatever_its_version(version: str) -> None:
    assert trace_id_of(f" {version}-{TRACE}-{PARENT}-00\t".encode()) == TRACE


@pytest.mark.parametrize("further", ["-", "-what-the-future-adds"])
def test_only_a_later_version_than_00_of_traceparent_may_carry_more(further: str) -> None:
    assert [trace_id_of(f"{version}-{TRACE}-{PARENT}-01{further}".encode()) for version in ("00", "01")] == ["", TRACE]


@pytest.mark.parametrize(
    "value",
    [
        "", "-", TRACE, f"00-{TRACE}", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-", f"00-{TRACE}-{PARENT}-0",
        f"00-{TRACE}-{PARENT}-011", f"01-{TRACE}-{PARENT}-01x", f"ff-{TRACE}-{PARENT}-01", f"0-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT.upper()}-01", f"00-{TRACE}-{PARENT}-0A", f"0A-{TRACE}-{PARENT}-01",
        f"00-{TRACE[1:]}-{PARENT}-01", f"00-{TRACE}0-{PARENT}-01", f"00-{TRACE}-{PARENT[1:]}-01",
        f"00_{TRACE}_{PARENT}_01", f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\n",
        "00-" + "g" * 32 + f"-{PARENT}-01", f"00-{TRACE}-{PARENT}-0\xb9",
    ],
)  # fmt: skip
def test_a_traceparent_that_is_not_valid_names_no_trace(value: str) -> None:
    assert trace_id_of(value.encode("latin-1")) == ""
