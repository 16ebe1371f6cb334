"""Fetches the keys of each issuer once, for ``check --online``, and prints what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TextIO

from verifier.config import Config
from verifier.keys.fetch import Fetch, FetchError
from verifier.keys.jwk import parse_key_file, parse_key_set
from verifier.keys.sets import discover, shown_url
from verifier.tokens.verify import IssuerRules


def run(config: Config, fetch_for: Callable[[IssuerRules], Fetch], out: TextIO) -> bool:
    """Print the keys of each issuer or the error. True where each issuer has a key for one of its algorithms."""

    async def all_issuers() -> list[tuple[bool, list[str]]]:
        return await asyncio.gather(*(_examine(rules, fetch_for(rules)) for rules in config.issuers))

    results = asyncio.run(all_issuers())
    for _, lines in results:
        print(*lines, sep="\n", file=out)
    return all(can_pass for can_pass, _ in results)


async def _examine(rules: IssuerRules, fetch: Fetch) -> tuple[bool, list[str]]:
    """Whether a token of the issuer can pass, and what there is to say about its keys."""
    source = ""
    try:
        if rules.jwks is not None:
            source = str(rules.jwks_file)
            keys = parse_key_file(rules.jwks)
        else:
            url = rules.key_set_url or await discover(fetch, rules.urls[0])
            source = shown_url(url)
            keys = parse_key_set((await fetch(url)).body)
    except (FetchError, ValueError) as error:
        return False, [f"issuer {rules.name}: no keys: " + f"{source}: {error}".removeprefix(": ")]
    fitting = {name: sum(key.fits(name) for key in keys.usable) for name in sorted(rules.algorithms)}
    counts = ", ".join(f"{name} {count}" for name, count in fitting.items())
    lines = [f"issuer {rules.name}: usable keys: {len(keys.usable)} ({counts}), from {source}"]
    for key in keys.unusable:
        name = "without kid" if key.kid is None else f"with kid {ascii(key.kid[:200])[1:-1]}"
        lines.append(f"  skipped: the key {name}: {key.cause}")
    if not any(fitting.values()):
        lines.append(f"  no token of {rules.name} can pass: no key fits its `algorithms`")
    return any(fitting.values()), lines
