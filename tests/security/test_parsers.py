"""Parsers of other languages: none reads a target that we allow as a path of a stricter rule.

nginx passes the raw target on, so that an API routes by what its own parser reads.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.support import make_principal
from verifier.policy.paths import PathPattern
from verifier.policy.policies import Policy, Rule
from verifier.reasons import Rejected

from .nginx_uri import matches

SEED = int(os.environ.get("FUZZ_SEED", "20261122"))
COUNT = int(os.environ.get("FUZZ_PATHS", "10000"))  # random targets, besides all short combinations

# Each policy has paths that a token with `read` may use and paths that need `admin`.
POLICIES = {
    "a strict part": {"/admin/**": "admin", "/**": "read"},
    "an open part": {"/public/**": "read", "/**": "admin"},
    # One path, with and without a final slash: many parsers drop it (docs/threat-model.md).
    "one strict path": {
        **dict.fromkeys(["/admin/keys", "/admin/keys/", "/admin", "/admin/"], "admin"), "/**": "read",
    },
    "a strict part in an open one": {"/public/admin/**": "admin", "/public/**": "read", "/x/*/admin": "admin"},
}  # fmt: skip
READER = make_principal("read")

SEGMENTS = [
    "admin", "public", "keys", "x", "", ".", "..", "%2e", "%2e%2e", "...", "%61dmin", "%70ublic", "admin;x", "public;x",
    ";x", ";", "..;x", ";..", "admin%3Bx", "%3Bx", "admin%3Fx", "%3F", "admin%23", "x:80", "u@h", "http:", "%2f",
    "admin%2fkeys", "\\", "%5c", "%252e%252e", "100%25", "a%20b", "%20", "+", "@", "%40", "*", "%C3%A9", "%C2%A0",
    "%EF%BC%8E%EF%BC%8E", "%EF%BC%8F",
]  # fmt: skip

# Refused, and read as a path of the strict part by parsers of at least one language.
MISREAD = [
    "//x/admin/keys", "///x/admin/keys", "//u@h/admin/keys", "//x:80/admin/keys", "//x/../admin/keys",
    "/\\x/admin/keys", "/%2e/admin/keys", "/x/..;/admin/keys", "/x/%2e%2e/admin/keys", "/;x/admin/keys",
    "/admin;x/keys",
]  # fmt: skip


def targets() -> Iterator[str]:
    """All combinations of up to two segments behind some starts, and random longer ones."""
    for start, first, second in itertools.product(("/", "//", "/admin/", "/public/"), SEGMENTS, SEGMENTS):
        yield f"{start}{first}/{second}"
    choose = random.Random(SEED)
    for _ in range(COUNT):
        segments = choose.choices(SEGMENTS, k=choose.randint(2, 6))
        yield "/" + choose.choice(["/", "/", "/", "//", "/./", "/../", ";/"]).join(segments)


def build(rules: dict[str, str]) -> Policy:
    return Policy("p", rules=tuple(Rule(PathPattern(path), None, ((scope,),)) for path, scope in rules.items()))


def is_allowed(policy: Policy, target: str) -> bool:
    try:
        policy.authorize(READER, "GET", b"https://api.example" + target.encode())
    except Rejected:
        return False
    return True


def is_strict(rules: dict[str, str], path: str) -> bool:
    """Whether the path needs more than the token has."""
    return next((scope for pattern, scope in rules.items() if matches(pattern, path)), "read") == "admin"


SOURCES = Path(__file__).with_name("parsers")
COMMANDS = {
    "node": ["node", "node.js"],
    "go": ["go", "run", "parser.go"],
    "java": ["java", "Parser.java"],
    "python": [sys.executable, "-P", "python.py"],
}


@pytest.fixture(scope="module")
def allowed() -> dict[str, list[str]]:
    """The targets that each policy allows."""
    every = list(dict.fromkeys(targets()))
    policies = {name: build(rules) for name, rules in POLICIES.items()}
    return {name: [target for target in every if is_allowed(policy, target)] for name, policy in policies.items()}


@pytest.fixture(scope="module", params=COMMANDS.values(), ids=list(COMMANDS))
def readings(request: pytest.FixtureRequest, allowed: dict[str, list[str]]) -> dict[str, set[str]]:
    """How the parsers of one language read each target."""
    program, *arguments = request.param
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    every = sorted({*MISREAD}.union(*allowed.values()))
    lines = "".join(f"{target}\n" for target in every)
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    command = [found, *arguments]
    run = subprocess.run(
        command, input=lines, env=environment, cwd=SOURCES, capture_output=True, encoding="utf-8", check=True
    )
    read = run.stdout.split("\n")[:-1]
    assert len(read) == len(every)
    return {target: set(line.split("\t")) for target, line in zip(every, read)}


def test_no_parser_reads_an_allowed_target_as_a_path_of_a_stricter_rule(
    readings: dict[str, set[str]], allowed: dict[str, list[str]]
) -> None:
    misread = [
        (name, target, path)
        for name, group in allowed.items()
        for target in group
        for path in readings[target]
        if is_strict(POLICIES[name], path)
    ]

    assert misread == []


def test_some_parser_reads_refused_targets_as_a_path_of_a_stricter_rule(readings: dict[str, set[str]]) -> None:
    rules = POLICIES["a strict part"]

    assert any(is_strict(rules, path) for target in MISREAD for path in readings[target])


def test_the_parsers_are_asked_about_thousands_of_allowed_targets(allowed: dict[str, list[str]]) -> None:
    assert len(set().union(*allowed.values())) > 2000
    assert min(map(len, allowed.values())) > 500


def test_the_targets_that_parsers_misread_are_refused() -> None:
    policy = build(POLICIES["a strict part"])

    assert [target for target in MISREAD if is_allowed(policy, target)] == []
