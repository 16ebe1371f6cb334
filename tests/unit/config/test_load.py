"""Reading the file: every error at once, each with its line, its place and a hint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.support import Problems, WriteConfig
from verifier.config import Config, ConfigError
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


def places(found: list[str]) -> list[str]:
    return [problem.split(": ")[1] for problem in found]


def test_a_file_is_read(write_config: WriteConfig, lab: dict[str, Any]) -> None:
    path = write_config(lab)
    config = load(path)

    assert isinstance(config, Config)
    assert (config.path, config.issuers[0].name) == (path, "lab")


def test_a_file_given_as_an_argument_takes_precedence_over_m2m_config(
    write_config: WriteConfig, lab: dict[str, Any]
) -> None:
    path = write_config(lab)

    assert load(path, Environment(m2m_config=Path("/nowhere"))).path == path


def test_every_error_is_reported_with_its_line_and_place(problems: Problems) -> None:
    assert {tuple(problem.split(": ")[:2]) for problem in problems(BROKEN)} == {
        ("m2m.yaml:1", "leeway"),
        ("m2m.yaml:3", "issuers[0].audience"),
        ("m2m.yaml:4", "issuers[0].issuer"),
        ("m2m.yaml:5", "issuers[0].audiences"),
        ("m2m.yaml:6", "issuers[0].algorithms[1]"),
        ("m2m.yaml:11", "policies.api.rules[1].path"),
        ("m2m.yaml:12", "policies.api.scope[0]"),
        ("m2m.yaml:14", "cache.sise"),
    }


def test_errors_are_reported_also_where_no_issuer_is_named(problems: Problems) -> None:
    found = "\n".join(problems("foo: 1\nleeway: x\n"))

    assert all(text in found for text in ("no issuer", "m2m.yaml:1: foo", "m2m.yaml:2: leeway"))


def test_errors_between_sections_are_reported_together(problems: Problems) -> None:
    found = problems("""\
issuers:
  - {name: lab, issuer: 'https://a.example', audience: any}
  - {name: lab, issuer: 'https://a.example', audience: any}
policies:
  api: {issuers: [other]}
headers: {Cache-Control: sub}
""")

    assert sorted(one.split(": ")[:2] for one in found) == [
        ["m2m.yaml:3", "issuers[1].name"],
        ["m2m.yaml:5", "policies.api.issuers[0]"],
        ["m2m.yaml:6", "headers.Cache-Control"],
    ]


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

    assert {place.removeprefix("issuers[0].") for place in places(found)} == expected


def test_two_wrong_issuer_urls_are_neither_missing_nor_the_same(problems: Problems) -> None:
    found = problems("""\
issuers:
  - {name: a, issuer: 'http://a.example', audience: any}
  - {name: b, issuer: 'http://a.example', audience: any}
""")

    assert places(found) == ["issuers[0].issuer", "issuers[1].issuer"]
    assert all("must be https" in problem for problem in found)


def test_a_required_list_with_wrong_items_is_not_missing(problems: Problems) -> None:
    resource = "{url: 'https://a.example', authorization_servers: ['http://a.example', 'http://b.example']}"
    place = "policies.mcp.resource.authorization_servers"

    assert places(problems(GOOD + f"policies: {{mcp: {{resource: {resource}}}}}")) == [f"{place}[0]", f"{place}[1]"]


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


@pytest.mark.parametrize(("content", "message"), [(b"a: \xff", "is not UTF-8"), (None, "No such file")])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m2m.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"{path}: {message}"):
        load(path, Environment())


def test_errors_do_not_quote_secrets(problems: Problems) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://user:hunter2@a.example', audience: any}]\n")

    assert "hunter2" not in "".join(found)
