"""Reading the file: every error at once, each with its line, its place and a hint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.support import Problems, WriteConfig
from verifier.config import ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load

GOOD = "issuers: [{name: lab, issuer: 'https://a.example', audience: any}]\n"
BROKEN = """\
leeway: -1
issuers:
  - name: lab
    issuer: http://issuer.example
    audiences: [api]
    algorithms: [RS256, none]
policies:
  api:
    rules:
      - {path: /db/**}
      - path: db
    scope: [a b]
cache:
  sise: 5
"""
SAME_NAMES = """\
issuers:
  - {name: lab, issuer: 'https://a.example', audience: any}
  - {name: lab, issuer: 'https://a.example', audience: any}
policies:
  api: {issuers: [other]}
headers: {Cache-Control: sub}
"""
SAME_WRONG_URLS = """\
issuers:
  - {name: a, issuer: 'http://a.example', audience: any}
  - {name: b, issuer: 'http://a.example', audience: any}
"""


def test_a_file_given_as_an_argument_takes_precedence_over_m2m_config(
    write_config: WriteConfig, lab: dict[str, Any]
) -> None:
    path = write_config(lab)
    config = load(path, Environment(m2m_config=Path("/nowhere")))

    assert (config.path, config.issuers[0].name) == (path, "lab")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(BROKEN, [
            "1: leeway", "3: issuers[0].audience", "4: issuers[0].issuer", "5: issuers[0].audiences",
            "6: issuers[0].algorithms[1]", "11: policies.api.rules[1].path", "12: policies.api.scope[0]",
            "14: cache.sise",
        ], id="within each section"),
        pytest.param(SAME_NAMES, [
            "2: issuers[0].name", "3: issuers[1].name", "5: policies.api.issuers[0]", "6: headers.Cache-Control",
        ], id="between sections"),
        pytest.param(SAME_WRONG_URLS, ["2: issuers[0].issuer", "3: issuers[1].issuer"], id="not the same too"),
        pytest.param(GOOD + "policies: {a: {resource: {url: 'https://a', authorization_servers: ['b', 'c']}}}", [
            f"2: policies.a.resource.authorization_servers[{place}]" for place in (0, 1)
        ], id="not missing too"),
    ],
)  # fmt: skip
def test_every_error_is_reported_once_with_its_line_and_place(
    problems: Problems, content: str, expected: list[str]
) -> None:
    places = [re.sub(r"^m2m\.yaml:(\d+: \S+): .+", r"\1", problem) for problem in problems(content)]

    assert sorted(places, key=lambda place: int(place.split(":")[0])) == expected


def test_errors_are_reported_also_where_no_issuer_is_named(problems: Problems) -> None:
    found = "\n".join(problems("foo: 1\nleeway: x\n"))

    assert all(text in found for text in ("no issuer", "m2m.yaml:1: foo", "m2m.yaml:2: leeway"))


def test_an_error_is_in_the_file_where_only_the_issuer_is_in_the_environment(write_config: WriteConfig) -> None:
    with pytest.raises(ConfigError, match=r"^[^:]*m2m\.yaml:1: policies\.api\.clients: must be a list"):
        load(write_config("policies: {api: {clients: a}}"), Environment(oauth_issuer="https://a.example"))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("audiences: 5", "audiences: unknown key: did you mean `audience`?"),
        ("leway: 5", "leway: unknown key: did you mean `leeway`?"),
        ("issuer_s: 5", "issuer_s: unknown key: did you mean `issuers`?"),
        ("zzzzzz: 5", "zzzzzz: unknown key"),
        ("mode: report", "mode: unknown key here: it belongs in another section"),
        ("revoked: {clients: [5]}", "revoked.clients[0]: must be text: put it in quotes"),
        ("policies: {api: {clients: abc}}", "policies.api.clients: must be a list: put it in [ ]"),
        ("policies: {api: {rules: 3}}", "policies.api.rules: must be a list: put it in [ ]"),
        ("roles: []", "roles: must hold names with values, as in {name: value}"),
        ("headers: X-User-ID", "headers: must hold names with values, as in {name: value}"),
    ],
)
def test_an_error_comes_with_a_hint(problems: Problems, written: str, message: str) -> None:
    assert problems(GOOD + written) == [f"m2m.yaml:2: {message}"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param("algorithms: [none], audience: any", {"algorithms[0]"}, id="a wrong item, nothing else"),
        pytest.param("algorithms: [none], jwks_url: 'https://a'", {"algorithms[0]", "audience"}, id="and no audience"),
        pytest.param("clients: [a b], profile: generic", {"clients[0]", "audience"}, id="a client, and no audience"),
        pytest.param("algorithms: [HS256]", {"algorithms", "audience"}, id="a shared secret, and no audience"),
        pytest.param("jwks_file: nowhere, audience: any", {"jwks_file"}, id="a missing file"),
        pytest.param("jwks_file: x, algorithms: [HS256], audience: any", {"jwks_file"}, id="for shared secrets"),
        pytest.param("algorithms: [HS256], profile: github", {"audience", "algorithms", "clients"}, id="three"),
    ],
)
def test_an_error_neither_hides_another_nor_causes_one(problems: Problems, settings: str, expected: set[str]) -> None:
    found = problems(f"issuers: [{{name: lab, issuer: 'https://a.example', {settings}}}]\n")

    assert {problem.split(": ")[1].removeprefix("issuers[0].") for problem in found} == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("issuers: [", r"m2m\.yaml:1: ", id="not YAML"),
        pytest.param("a: 1\nleeway: 1\nleeway: 2\n", r"m2m\.yaml:3: leeway is given twice", id="a key twice"),
        pytest.param("cache:\n  ttl: 1\n  ttl: 2\n", r"m2m\.yaml:3: ttl is given twice", id="a key twice, inside"),
        pytest.param("- a\n", r"m2m\.yaml: must be a mapping", id="a list"),
        pytest.param("text", r"m2m\.yaml: must be a mapping", id="a text"),
        pytest.param("a: !!python/object/apply:os.getcwd []", r"m2m\.yaml:1: could not determine", id="a Python tag"),
        pytest.param("a: " + "[" * 1200, r"m2m\.yaml", id="nested too deeply"),
        pytest.param("leeway: 2024-99-99\n", r"m2m\.yaml: month must be in 1\.\.12", id="a date that does not exist"),
        pytest.param("", r"no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="empty"),
        pytest.param("leeway: 5", r"no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="no issuer"),
        pytest.param("issuers:", r"issuers", id="issuers without a value"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(problems: Problems, content: str, message: str) -> None:
    assert re.search(message, "\n".join(problems(content)))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m2m.yaml"
    path.write_bytes(b"a: \xff")

    with pytest.raises(ConfigError, match=f"{path}: is not UTF-8"):
        load(path, Environment())


def test_errors_do_not_quote_secrets(problems: Problems) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://user:hunter2@a.example', audience: any}]\n")

    assert "hunter2" not in "".join(found)
