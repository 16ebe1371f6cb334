"""JSON with one meaning only."""

import pytest

from verifier.strict_json import parse_object


def test_an_object_is_parsed_with_white_space_around_it() -> None:
    assert parse_object(b' \t\r\n{"a": [1, 2.5, null, true, "\xc3\xa9"]}\n') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a": 1, "a": 1}', id="duplicate key"),
        pytest.param(b'{"a": 1, "\\u0061": 1}', id="duplicate key, escaped"),
        pytest.param(b'{"a": {"b": 1, "b": 2}}', id="duplicate key inside"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="Infinity"),
        pytest.param(b'{"a": 1e999}', id="beyond a double"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"a"', id="string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"a": 1} {}', id="something after it"),
        pytest.param(b"X{}", id="something before it"),
        pytest.param("\u00a0{}".encode(), id="a no-break space before it"),
        pytest.param("{}\u00a0".encode(), id="a no-break space after it"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a": "\n"}', id="raw line break in a string"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1,}', id="trailing comma"),
        pytest.param(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nested too deeply"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", id="a number of 5,000 digits"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind of error is the whole promise
        parse_object(data)
