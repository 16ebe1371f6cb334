"""JSON as signed data needs it: one meaning only."""

from __future__ import annotations

import json
import math
from typing import Any


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


_decode = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
).raw_decode
_WHITE_SPACE = " \t\n\r"  # RFC 8259 section 2


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Refuses what two parsers could read differently: duplicate keys (RFC 7515 section 4, RFC 7519 section 4), NaN,
    Infinity and 1e999, anything but strict UTF-8, and nesting that no claim has. Raises ValueError.
    """
    try:
        text = data.decode("utf-8").strip(_WHITE_SPACE)
        found, end = _decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(text) or not isinstance(found, dict):
        raise ValueError("not an object")
    return found
