"""What may become a response header."""

import pytest

from tests.unit.support import make_principal, make_token
from verifier.identity import HEADER_SAFE, IDENTITY_HEADERS, VISIBLE, encode_headers, header_lines, split_headers


def test_the_identity_headers_are_those_of_the_contract() -> None:
    assert IDENTITY_HEADERS == ("X-M2M-Client-ID", "X-M2M-Scope", "X-M2M-Role", "X-M2M-Issuer")


SAFE = ["", "a", "a b", "!~", "arn:aws:iam::1:role/x", "a  b"]
UNSAFE = [" ", " a", "a ", "a\n", "a\r\nX: y", "a\x00", "a\x7f", "a\tb", "é", "a\x85b"]


@pytest.mark.parametrize("value", SAFE + UNSAFE, ids=ascii)
def test_only_printable_ascii_without_a_space_at_either_end_is_header_safe(value: str) -> None:
    assert bool(HEADER_SAFE.fullmatch(value)) is (value in SAFE)


@pytest.mark.parametrize("value", ["", "a b", "a\n", "\x7f", "é"], ids=ascii)
def test_a_client_id_is_visible_ascii_and_not_empty(value: str) -> None:
    assert not VISIBLE.fullmatch(value)


def test_headers_are_encoded_with_lower_case_names_and_written_as_they_are_sent() -> None:
    headers = encode_headers([("X-M2M-Role", "Admin"), ("D", "")])

    assert headers == ((b"x-m2m-role", b"Admin"), (b"d", b""))
    assert header_lines(headers) == b"x-m2m-role: Admin\r\nd: \r\n"
    assert split_headers(header_lines(headers)) == headers


@pytest.mark.parametrize(
    ("frozen", "name"), [(make_principal(), "issuer"), (make_token(), "exp")], ids=["principal", "token"]
)
def test_what_was_verified_cannot_be_changed(frozen: object, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(frozen, name, "other")
