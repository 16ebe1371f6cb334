"""Fetches the keys of each issuer once, for ``check --online``, and prints what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TextIO
from urllib.parse import urlsplit

from verifier.config import Config
from verifier.keys.fetch import Fetch, FetchError
from verifier.keys.jwk import ParsedKeys, parse_key_file, parse_key_set
from verifier.keys.sets import discover
from verifier.tokens.verify import IssuerRules


class _Found(NamedTuple):
    """The key set of one issuer, and the file or URL that it came from."""

    source: str
    keys: ParsedKeys


def run(config: Config, fetch_for: Callable[[IssuerRules], Fetch], out: TextIO) -> bool:
    """Print the keys of each issuer or the error. True where each issuer has a key for one of its algorithms."""

    async def all_issuers() -> list[_Found | str]:
        return await asyncio.gather(*(_keys(rules, fetch_for(rules)) for rules in config.issuers))

    results = [_write(rules, found, out) for rules, found in zip(config.issuers, asyncio.run(all_issuers()))]
    return all(results)


async def _keys(rules: IssuerRules, fetch: Fetch) -> _Found | str:
    """The keys of an issuer, or the error."""
    if rules.jwks is not None:
        return _Found(str(rules.jwks_file), parse_key_file(rules.jwks))
    source = ""
    try:
        url = rules.key_set_url or await discover(fetch, rules.urls[0])
        parts = urlsplit(url)
        source = _printable(f"{parts.scheme}://{parts.netloc}{parts.path}")  # without a query, which may be secret
        return _Found(source, parse_key_set((await fetch(url)).body))
    except (FetchError, ValueError) as error:
        return f"{source}: {error}".removeprefix(": ")


def _write(rules: IssuerRules, found: _Found | str, out: TextIO) -> bool:
    if isinstance(found, str):
        out.write(f"issuer {rules.name}: no keys: {found}\n")
        return False
    fitting = {
        name: sum(key.fits(name) for key in found.keys.usable)
        for name in sorted(rules.algorithms)
    }  # fmt: skip
    counts = ", ".join(f"{name} {count}" for name, count in fitting.items())
    out.write(f"issuer {rules.name}: usable keys: {len(found.keys.usable)} ({counts}), from {found.source}\n")
    for key in found.keys.unusable:
        name = "without kid" if key.kid is None else f"with kid {_printable(key.kid)}"
        out.write(f"  skipped: the key {name}: {key.cause}\n")
    if not any(fitting.values()):
        out.write(f"  no token of {rules.name} can pass: no key fits its `algorithms`\n")
    return any(fitting.values())


def _printable(text: str) -> str:
    """Text from the network for a terminal: escaped and cut."""
    return ascii(text[:200])[1:-1]
