"""What the configuration's tests share: an issuer's settings, and the types of fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from verifier.config import Config

MakeConfig = Callable[..., Config]
WriteConfig = Callable[[str | dict[str, Any]], Path]
Problems = Callable[[str | dict[str, Any]], list[str]]


def issuer(**changes: Any) -> dict[str, Any]:
    """A configuration with one issuer, with changed settings; None leaves one out."""
    given = {"name": "lab", "issuer": "https://issuer.example", "audience": ["api"], **changes}
    return {"issuers": [{name: value for name, value in given.items() if value is not None}]}
