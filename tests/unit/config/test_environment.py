"""The environment: one issuer, the addresses, and which variable an error is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.unit.config.support import WriteConfig
from verifier.config import Config, ConfigError
from verifier.config.environment import read_environment
from verifier.config.load import load
from verifier.tokens.profiles import PROFILES

FromEnvironment = Callable[..., Config]
POOL = "us-east-1_Example"
URL = "https://issuer.example"
SERVICE_PORT = "tcp://10.96.0.1:80"  # as Kubernetes sets M2M_PORT for a Service named m2m


@pytest.fixture
def from_environment(monkeypatch: pytest.MonkeyPatch) -> FromEnvironment:
    """The configuration that variables, and addresses of the command line, make."""

    def make(variables: dict[str, str], listen: Mapping[str, int] = {}) -> Config:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(None, read_environment(listen))

    return make


def aws(pool: str) -> str:
    return f"https://cognito-idp.{pool.partition('_')[0]}.amazonaws.com/{pool}"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"COGNITO_USER_POOL_ID": POOL}, ("cognito", aws(POOL), f"{aws(POOL)}/.well-known/jwks.json", "cognito", None)),
        ({"COGNITO_USER_POOL_ID": "eu-west-1_p", "COGNITO_REGION": "eu-west-1", "COGNITO_CLIENT_IDS": "a, b"},
         ("cognito", aws("eu-west-1_p"), f"{aws('eu-west-1_p')}/.well-known/jwks.json", "cognito", {"a", "b"})),
        ({"COGNITO_USER_POOL_ID": POOL, "COGNITO_CLIENT_IDS": " ,"},  # a list without clients allows none
         ("cognito", aws(POOL), f"{aws(POOL)}/.well-known/jwks.json", "cognito", set())),
        ({"OAUTH_ISSUER": URL}, ("oauth", URL, None, "generic", None)),
        ({"OAUTH_ISSUER": URL, "OAUTH_JWKS_URL": f"{URL}/keys"}, ("oauth", URL, f"{URL}/keys", "generic", None)),
        ({"OAUTH_ISSUER": URL, "OAUTH_PROFILE": "okta"}, ("oauth", URL, None, "okta", None)),
        ({"OAUTH_ISSUER": URL, "OAUTH_PROFILE": "rfc9068"}, ("oauth", URL, None, "rfc9068", None)),
        ({"OAUTH_ISSUER": aws(POOL)}, ("oauth", aws(POOL), None, "cognito", None)),
        ({"OAUTH_ISSUER": aws(POOL), "OAUTH_PROFILE": "generic"}, ("oauth", aws(POOL), None, "generic", None)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_variables_describe_one_issuer(
    from_environment: FromEnvironment, variables: dict[str, str], expected: tuple[Any, ...]
) -> None:
    config = from_environment(variables)
    [issuer] = config.issuers
    name, url, keys, profile, clients = expected

    assert config.path is None
    assert (issuer.name, issuer.urls[0], issuer.key_set_url) == (name, url, keys)
    assert (issuer.profile, issuer.clients) == (PROFILES[profile], clients)


@pytest.mark.parametrize(("written", "audience"), [("", set()), ("a,b", {"a", "b"}), ("any", None)])
def test_no_audience_is_accepted_unless_it_is_named(
    from_environment: FromEnvironment, written: str, audience: set[str] | None
) -> None:
    assert from_environment({"OAUTH_ISSUER": URL, "OAUTH_AUDIENCE": written}).issuers[0].audience == audience


@pytest.mark.parametrize(
    ("variables", "given", "expected"),
    [
        ({}, {}, ("0.0.0.0", 8000, 9090, 1)),
        ({"M2M_HOST": "::1", "M2M_PORT": "1", "M2M_METRICS_PORT": "2", "M2M_WORKERS": "3"}, {}, ("::1", 1, 2, 3)),
        ({"M2M_PORT": "", "M2M_CONFIG": "", "COGNITO_USER_POOL_ID": ""}, {}, ("0.0.0.0", 8000, 9090, 1)),
        ({"M2M_PORT": SERVICE_PORT, "M2M_WORKERS": "2"}, {"port": 8001}, ("0.0.0.0", 8001, 9090, 2)),
    ],
    ids=["defaults", "variables", "empty variables count as unset", "the command line's values take precedence"],
)
def test_the_addresses_have_defaults_and_may_be_named(
    from_environment: FromEnvironment, variables: dict[str, str], given: dict[str, int], expected: tuple[Any, ...]
) -> None:
    config = from_environment({"OAUTH_ISSUER": URL, **variables}, given)

    assert tuple(vars(config.listen).values()) == expected


def test_a_file_may_leave_the_issuer_to_the_environment(
    from_environment: FromEnvironment, write_config: WriteConfig
) -> None:
    path = write_config("policies: {api: {scope: [read]}}")
    config = from_environment({"M2M_CONFIG": str(path), "OAUTH_ISSUER": URL})

    assert (config.path, config.issuers[0].name, "api" in config.policies.by_name) == (path, "oauth", True)


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("COGNITO_REGOIN", "COGNITO_REGOIN is not a variable of the verifier: did you mean COGNITO_REGION?"),
        ("OAUTH_AUDIENC", "OAUTH_AUDIENC is not a variable of the verifier: did you mean OAUTH_AUDIENCE?"),
        ("OAUTH_AUDIENCES", "OAUTH_AUDIENCES is not a variable of the verifier: did you mean OAUTH_AUDIENCE?"),
        ("AUTH_ISSUER", "AUTH_ISSUER is not a variable of the verifier: did you mean OAUTH_ISSUER?"),
        ("M2M-PORT", "M2M-PORT is not a variable of the verifier: did you mean M2M_PORT?"),
        ("M2M_WORKERZ", "M2M_WORKERZ is not a variable of the verifier: did you mean M2M_WORKERS?"),
        ("COGNITO_REGION", "COGNITO_REGION has no effect: COGNITO_USER_POOL_ID is not set"),
        ("COGNITO_CLIENT_IDS", "COGNITO_CLIENT_IDS has no effect: COGNITO_USER_POOL_ID is not set"),
    ],
)
def test_a_variable_without_effect_is_a_warning(
    from_environment: FromEnvironment, caplog: pytest.LogCaptureFixture, name: str, warning: str
) -> None:
    from_environment({"OAUTH_ISSUER": URL, "OAUTH_AUDIENCE": "any", name: "x"})

    assert caplog.messages == [warning]


@pytest.mark.parametrize("name", ["OAUTH_ISSUER", "OAUTH_JWKS_URL", "OAUTH_AUDIENCE", "OAUTH_PROFILE"])
def test_issuers_in_the_file_leave_the_issuers_variables_without_effect(
    from_environment: FromEnvironment, write_config: WriteConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:  # fmt: skip
    path = write_config(lab)
    config = from_environment({"M2M_CONFIG": str(path), name: "https://other.example"})

    assert [issuer.urls for issuer in config.issuers] == [(URL,)]
    assert caplog.messages == [f"{name} has no effect: {path} names issuers"]


def test_variables_with_effect_and_of_other_programs_are_no_warning(
    from_environment: FromEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    from_environment({
        "COGNITO_USER_POOL_ID": POOL, "COGNITO_REGION": "us-east-1", "M2M_PORT": "8000", "M2M_SERVICE_HOST": "10.0.0.1",
        "M2M_PORT_8000_TCP": "tcp://10.0.0.1:8000", "OAUTH_CLIENT_SECRET": "x", "COGNITO_REGOIN": "",
    })  # fmt: skip

    assert caplog.messages == []


PORT_RANGE = "M2M_PORT: must be a number from 0 to 65535, not "


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({}, "no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="nothing"),
        pytest.param({"COGNITO_USER_POOL_ID": POOL, "OAUTH_ISSUER": URL}, "give one", id="both issuers"),
        pytest.param({"OAUTH_ISSUER": "http://a.example"}, "OAUTH_ISSUER: must be https", id="issuer over plain http"),
        pytest.param({"OAUTH_ISSUER": URL, "OAUTH_JWKS_URL": "http://a"}, "OAUTH_JWKS_URL: must be https", id="keys"),
        pytest.param({"COGNITO_USER_POOL_ID": "a/b"}, "COGNITO_USER_POOL_ID: must be", id="pool"),
        pytest.param({"COGNITO_USER_POOL_ID": POOL, "COGNITO_CLIENT_IDS": "é"}, "COGNITO_CLIENT_IDS: ", id="client"),
        pytest.param({"COGNITO_USER_POOL_ID": POOL, "COGNITO_REGION": "eu-west-1"},
                     "COGNITO_REGION: is eu-west-1, but the pool id names us-east-1", id="another region"),
        pytest.param({"OAUTH_ISSUER": URL, "OAUTH_PROFILE": "oktaa"}, "OAUTH_PROFILE: ", id="profile"),
        pytest.param({"OAUTH_ISSUER": URL, "OAUTH_PROFILE": "github"}, "needs a file with `clients`", id="github"),
        pytest.param({"M2M_PORT": "65536"}, f"{PORT_RANGE}'65536'", id="too large"),
        pytest.param({"M2M_PORT": "x" * 1000}, f"{PORT_RANGE}'{'x' * 80}'", id="a long value is cut"),
        pytest.param({"M2M_WORKERS": "0"}, "M2M_WORKERS: must be a number from 1 to 64, not '0'", id="no workers"),
        pytest.param({"M2M_PORT": "x", "M2M_WORKERS": "y"}, f"{PORT_RANGE}'x'\nM2M_WORKERS: ", id="every wrong one"),
        pytest.param({"M2M_PORT": SERVICE_PORT}, f"{PORT_RANGE}'{SERVICE_PORT}': Kubernetes sets this for a Service "
                     "named m2m;", id="a Service's port"),
        pytest.param({"M2M_METRICS_PORT": SERVICE_PORT}, "a Service named m2m-metrics;", id="another Service's"),
        pytest.param({"M2M_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml: No such file", id="no such file"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_work_is_named(
    from_environment: FromEnvironment, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(variables)

    assert message in "\n".join(caught.value.problems)
