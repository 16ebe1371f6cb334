"""JSON with one meaning only."""

import pytest

from verifier.strict_json import parse_object


def test_an_object_is_parsed_with_white_space_around_it() -> None:
    assert parse_object(b' \t\r\n{"a": [1, 2.5, null, true, "\xc3\xa9"]}\n') == {"a": [1, 2.5, None, True, "é"]}


REFUSED = {
    "duplicate key": b'{"a": 1, "a": 1}', "duplicate key, escaped": b'{"a": 1, "\\u0061": 1}',
    "duplicate key inside": b'{"a": {"b": 1, "b": 2}}', "NaN": b'{"a": NaN}', "Infinity": b'{"a": -Infinity}',
    "beyond a double": b'{"a": 1e999}', "array": b"[]", "string": b'"a"', "null": b"null", "empty": b"",
    "something after it": b'{"a": 1} {}', "something before it": b"X{}",
    "a no-break space before it": "\u00a0{}".encode(), "a no-break space after it": "{}\u00a0".encode(),
    "byte order mark": b"\xef\xbb\xbf{}", "not UTF-8": b'{"a": "\xff"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}', "UTF-16": '{"a": 1}'.encode("utf-16"),
    "raw line break in a string": b'{"a": "\n"}', "single quotes": b"{'a': 1}", "trailing comma": b'{"a": 1,}',
    "nested too deeply": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_two_parsers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind of error is the whole promise
        parse_object(data)
