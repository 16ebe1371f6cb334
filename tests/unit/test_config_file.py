"""Reading the file and the environment: every error at once, each with its line, its place and a hint."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verifier.config import Config, ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load, main, read_environment
from verifier.tokens.profiles import PROFILES

pytestmark = pytest.mark.usefixtures("no_environment")

MakeConfig = Callable[..., Config]
WriteConfig = Callable[[str | dict[str, Any]], Path]


@pytest.fixture
def problems(write_config: WriteConfig) -> Callable[[str], list[str]]:
    """Each error of a file, with the file's folder left out."""

    def find(content: str) -> list[str]:
        path = write_config(content)
        with pytest.raises(ConfigError) as caught:
            load(path, Environment())
        return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]

    return find


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


def test_every_error_is_told_at_once_each_with_its_line_and_place(problems: Callable[[str], list[str]]) -> None:
    places = {problem.partition(": ")[0]: problem.partition(": ")[2].partition(": ")[0] for problem in problems(BROKEN)}

    assert places == {
        "m2m.yaml:1": "leeway",
        "m2m.yaml:3": "issuers[0].audience",
        "m2m.yaml:4": "issuers[0].issuer",
        "m2m.yaml:5": "issuers[0].audiences",
        "m2m.yaml:6": "issuers[0].algorithms[1]",
        "m2m.yaml:11": "policies.api.rules[1].path",
        "m2m.yaml:12": "policies.api.scope[0]",
        "m2m.yaml:14": "cache.sise",
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [("audiences", "audience"), ("leway", "leeway"), ("issuer_s", "issuers"), ("polices", "policies")],
)
def test_an_unknown_key_comes_with_a_hint(problems: Callable[[str], list[str]], written: str, meant: str) -> None:
    found = problems(f"issuers: [{{name: lab, issuer: 'https://a.example', audience: any}}]\n{written}: 5\n")

    assert found == [f"m2m.yaml:2: {written}: unknown key: did you mean `{meant}`?"]


def test_an_unknown_key_like_no_other_comes_without(problems: Callable[[str], list[str]]) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://a.example', audience: any}]\nzzzzzz: 5\n")

    assert found == ["m2m.yaml:2: zzzzzz: unknown key"]


def test_text_that_yaml_reads_as_a_number_comes_with_a_hint(problems: Callable[[str], list[str]]) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://a.example', audience: any, clients: [5]}]\n")

    assert found == ["m2m.yaml:1: issuers[0].clients[0]: must be text: put it in quotes"]


def test_a_date_that_is_none_is_told_in_words(problems: Callable[[str], list[str]]) -> None:
    assert problems("leeway: 2024-99-99\n") == ["m2m.yaml: month must be in 1..12"]


def test_a_key_of_another_section_is_not_taken_for_a_slip(problems: Callable[[str], list[str]]) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://a.example', audience: any}]\nmode: report\n")

    assert found == ["m2m.yaml:2: mode: unknown key here: it belongs in another section"]


@pytest.mark.parametrize(
    ("written", "place", "told"),
    [
        ("policies: {api: {clients: abc}}", "policies.api.clients", "must be a list: put it in [ ]"),
        ("policies: {api: {rules: 3}}", "policies.api.rules", "must be a list: put it in [ ]"),
        ("roles: []", "roles", "must hold names with values, as in {name: value}"),
        ("headers: X-User-ID", "headers", "must hold names with values, as in {name: value}"),
    ],
)
def test_what_has_another_form_comes_with_a_hint(
    problems: Callable[[str], list[str]], written: str, place: str, told: str
) -> None:
    found = problems(f"issuers: [{{name: lab, issuer: 'https://a.example', audience: any}}]\n{written}\n")

    assert found == [f"m2m.yaml:2: {place}: {told}"]


def test_errors_between_the_parts_are_told_at_once_too(problems: Callable[[str], list[str]]) -> None:
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


TWO_KINDS = [
    pytest.param("algorithms: [none]", "audience: any", {"algorithms[0]"}, id="a wrong item, nothing else"),
    pytest.param(
        "algorithms: [none]", "jwks_url: 'https://a.example'", {"algorithms[0]", "audience"}, id="and no audience"
    ),
    pytest.param(
        "clients: [a b]", "profile: generic", {"clients[0]", "audience"}, id="a wrong client, and no audience"
    ),
    pytest.param(
        "algorithms: [HS256]", "profile: generic", {"algorithms", "audience"}, id="no audience, and a shared secret"
    ),
    pytest.param("jwks_file: nowhere", "audience: any", {"jwks_file"}, id="a file that is not there"),
    pytest.param("jwks_file: nowhere, algorithms: [HS256]", "audience: any", {"jwks_file"}, id="for shared secrets"),
]


@pytest.mark.parametrize(("one", "other", "places"), TWO_KINDS)
def test_an_error_neither_hides_another_nor_makes_one_up(
    problems: Callable[[str], list[str]], one: str, other: str, places: set[str]
) -> None:
    found = problems(f"issuers: [{{name: lab, issuer: 'https://a.example', {one}, {other}}}]\n")

    assert {problem.split(": ")[1].removeprefix("issuers[0]").removeprefix(".") for problem in found} == places


def test_two_wrong_issuer_urls_are_not_told_to_be_the_same(problems: Callable[[str], list[str]]) -> None:
    found = problems("""\
issuers:
  - {name: a, issuer: 'http://a.example', audience: any}
  - {name: b, issuer: 'http://b.example', audience: any}
""")

    assert [one.split(": ")[1] for one in found] == ["issuers[0].issuer", "issuers[1].issuer"]


def test_a_wrong_issuer_url_is_not_told_to_be_missing(problems: Callable[[str], list[str]]) -> None:
    found = problems("issuers: [{name: lab, issuer: 'http://a.example', audience: any}]\n")

    assert found == ["m2m.yaml:1: issuers[0].issuer: must be https (http is for loopback alone)"]


def test_a_wrong_item_of_what_is_required_is_not_told_to_be_missing(problems: Callable[[str], list[str]]) -> None:
    found = problems("""\
issuers: [{name: lab, issuer: 'https://a.example', audience: any}]
policies: {mcp: {resource: {url: 'https://a.example', authorization_servers: ['http://a.example', 'http://b.example']}}}
""")

    assert [one.split(": ")[1] for one in found] == [
        "policies.mcp.resource.authorization_servers[0]",
        "policies.mcp.resource.authorization_servers[1]",
    ]


def test_all_that_does_not_fit_together_in_one_issuer_is_told(problems: Callable[[str], list[str]]) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://a.example', algorithms: [HS256], profile: github}]\n")

    assert all(word in "".join(found) for word in ("audience: is missing", "need a jwks_file", "needs clients"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param("issuers: [", r"m2m\.yaml:1: ", id="not YAML"),
        pytest.param("a: 1\nleeway: 1\nleeway: 2\n", r"m2m\.yaml:3: leeway is given twice", id="a key twice"),
        pytest.param("cache:\n  ttl: 1\n  ttl: 2\n", r"m2m\.yaml:3: ttl is given twice", id="a key twice, inside"),
        pytest.param("- a\n", r"m2m\.yaml: must be a mapping", id="a list"),
        pytest.param("text", r"m2m\.yaml: must be a mapping", id="a text"),
        pytest.param("a: !!python/object/apply:os.getcwd []", r"m2m\.yaml:1: could not determine", id="a Python tag"),
        pytest.param("a: " + "[" * 1200, r"m2m\.yaml", id="nested too deeply"),
        pytest.param("", r"no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="empty"),
        pytest.param("leeway: 5", r"no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="no issuer"),
        pytest.param("issuers:", r"issuers", id="issuers without a value"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(problems: Callable[[str], list[str]], content: str, told: str) -> None:
    assert re.search(told, "\n".join(problems(content)))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m2m.yaml"
    path.write_bytes(b"a: \xff")

    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(path, Environment())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nowhere.yaml", Environment())


def test_errors_do_not_quote_what_was_written(problems: Callable[[str], list[str]]) -> None:
    found = problems("issuers: [{name: lab, issuer: 'https://user:hunter2@a.example', audience: any}]\n")

    assert "hunter2" not in "".join(found)


# --- the environment ---


@pytest.fixture
def from_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """The configuration that variables alone make."""

    def make(**variables: str) -> Config:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(None, read_environment())

    return make


def test_a_user_pool_is_enough(from_environment: Callable[..., Config]) -> None:
    config = from_environment(COGNITO_USER_POOL_ID="us-east-1_Example")
    issuer = config.issuers[0]

    assert config.path is None
    assert (issuer.name, issuer.profile, issuer.clients) == ("cognito", PROFILES["cognito"], None)
    assert issuer.urls[0] == "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Example"


def test_a_user_pools_region_and_clients_may_be_named(from_environment: Callable[..., Config]) -> None:
    issuer = from_environment(COGNITO_USER_POOL_ID="p", COGNITO_REGION="eu-west-1", COGNITO_CLIENT_IDS="a, b").issuers[
        0
    ]

    assert issuer.urls[0] == "https://cognito-idp.eu-west-1.amazonaws.com/p"
    assert issuer.clients == {"a", "b"}


def test_an_oauth_issuer_is_enough(from_environment: Callable[..., Config]) -> None:
    issuer = from_environment(OAUTH_ISSUER="https://issuer.example").issuers[0]

    assert (issuer.urls, issuer.key_set_url, issuer.profile) == (
        ("https://issuer.example",), None, PROFILES["generic"],
    )  # fmt: skip


def test_an_oauth_issuer_without_audience_takes_no_token_with_one(
    from_environment: Callable[..., Config],
) -> None:
    """Nobody wrote out that any would do."""
    issuer = from_environment(OAUTH_ISSUER="https://issuer.example").issuers[0]

    assert issuer.audience == frozenset()


def test_an_oauth_issuers_keys_and_audience_may_be_named(from_environment: Callable[..., Config]) -> None:
    issuer = from_environment(
        OAUTH_ISSUER="https://issuer.example", OAUTH_JWKS_URL="https://issuer.example/keys", OAUTH_AUDIENCE="a,b"
    ).issuers[0]

    assert (issuer.key_set_url, issuer.audience) == ("https://issuer.example/keys", {"a", "b"})


def test_an_oauth_issuer_that_is_cognitos_has_cognitos_profile(from_environment: Callable[..., Config]) -> None:
    issuer = from_environment(OAUTH_ISSUER="https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Example").issuers[0]

    assert issuer.profile == PROFILES["cognito"]


def test_the_addresses_have_defaults(from_environment: Callable[..., Config]) -> None:
    listen = from_environment(OAUTH_ISSUER="https://issuer.example").listen

    assert (listen.port, listen.metrics_port, listen.workers) == (8000, 9090, 1)


def test_the_addresses_may_be_named(from_environment: Callable[..., Config]) -> None:
    listen = from_environment(
        OAUTH_ISSUER="https://issuer.example", M2M_HOST="127.0.0.1", M2M_PORT="1", M2M_METRICS_PORT="2", M2M_WORKERS="3"
    ).listen

    assert (listen.host, listen.port, listen.metrics_port, listen.workers) == ("127.0.0.1", 1, 2, 3)


def test_m2m_config_names_the_file(
    from_environment: Callable[..., Config], write_config: WriteConfig, lab: dict[str, Any]
) -> None:
    path = write_config(lab)

    assert from_environment(M2M_CONFIG=str(path)).path == path


def test_a_file_named_on_the_command_line_comes_before_m2m_config(
    write_config: WriteConfig, lab: dict[str, Any]
) -> None:
    path = write_config(lab)

    assert load(path, Environment(m2m_config=Path("/nowhere"))).path == path


def test_a_file_may_leave_the_issuer_to_the_environment(
    from_environment: Callable[..., Config], write_config: WriteConfig
) -> None:
    path = write_config("policies: {api: {scope: [read]}}")
    config = from_environment(M2M_CONFIG=str(path), OAUTH_ISSUER="https://issuer.example")

    assert (config.issuers[0].name, "api" in config.policies.by_name) == ("oauth", True)


def test_empty_variables_are_no_variables(from_environment: Callable[..., Config]) -> None:
    config = from_environment(
        COGNITO_USER_POOL_ID="", COGNITO_REGION="", OAUTH_ISSUER="https://issuer.example", M2M_PORT="", M2M_CONFIG=""
    )

    assert (config.issuers[0].name, config.listen.port) == ("oauth", 8000)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        pytest.param({}, "no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="nothing"),
        pytest.param({"COGNITO_USER_POOL_ID": "p", "OAUTH_ISSUER": "https://a.example"}, "give one", id="both issuers"),
        pytest.param({"OAUTH_ISSUER": "http://a.example"}, "OAUTH_ISSUER: must be https", id="issuer over plain http"),
        pytest.param(
            {"OAUTH_ISSUER": "https://a.example", "OAUTH_JWKS_URL": "http://a.example"},
            "OAUTH_JWKS_URL: must be https",
            id="keys over plain http",
        ),
        pytest.param({"COGNITO_USER_POOL_ID": "a/b"}, "COGNITO_USER_POOL_ID: must be", id="pool"),
        pytest.param({"COGNITO_USER_POOL_ID": "p", "COGNITO_REGION": "a.b"}, "COGNITO_REGION: must be", id="region"),
        pytest.param({"COGNITO_USER_POOL_ID": "p", "COGNITO_CLIENT_IDS": "é"}, "COGNITO_CLIENT_IDS: must", id="client"),
        pytest.param({"M2M_PORT": "http"}, "M2M_PORT: ", id="port"),
        pytest.param({"M2M_PORT": "65536"}, "M2M_PORT: ", id="port too large"),
        pytest.param({"M2M_WORKERS": "0"}, "M2M_WORKERS: ", id="no workers"),
        pytest.param({"M2M_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml: No such file", id="no such file"),
    ],
)
def test_a_variable_that_cannot_work_is_named(
    from_environment: Callable[..., Config], variables: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(**variables)

    assert told in "\n".join(caught.value.problems)


def test_every_wrong_variable_is_told_at_once(from_environment: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(M2M_PORT="x", M2M_WORKERS="y")

    assert [one.partition(":")[0] for one in caught.value.problems] == ["M2M_PORT", "M2M_WORKERS"]


# --- the process that reads for others ---


def test_a_good_configuration_is_written_for_others_to_load(
    write_config: WriteConfig, lab: dict[str, Any], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = write_config(lab)

    assert main([str(path)]) == 0
    config = pickle.loads(capfdbinary.readouterr().out)
    assert (config.path, config.issuers[0].name) == (path, "lab")


def test_errors_are_written_as_json(write_config: WriteConfig, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_config("leeway: 5")

    assert main([str(path)]) == 2
    assert len(json.loads(capfd.readouterr().out)) == 1


def test_every_error_is_told_also_where_no_issuer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m2m.yaml"
    path.write_text("foo: 1\nleeway: x\n")
    with pytest.raises(ConfigError) as caught:
        load(path, Environment())
    told = "\n".join(caught.value.problems)

    assert "no issuer" in told
    assert f"{path}:1: foo" in told
    assert f"{path}:2: leeway" in told
