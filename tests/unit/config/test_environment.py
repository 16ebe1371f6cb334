"""The environment: one issuer, the addresses, and which variable an error is about."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.fixture
def from_environment(monkeypatch: pytest.MonkeyPatch) -> FromEnvironment:
    """The configuration that variables alone make."""

    def make(**variables: str) -> Config:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(None, read_environment())

    return make


def test_a_user_pool_is_enough(from_environment: FromEnvironment) -> None:
    config = from_environment(COGNITO_USER_POOL_ID=POOL)
    issuer = config.issuers[0]

    assert config.path is None
    assert (issuer.name, issuer.profile, issuer.clients) == ("cognito", PROFILES["cognito"], None)
    assert issuer.urls[0] == f"https://cognito-idp.us-east-1.amazonaws.com/{POOL}"


def test_a_user_pools_region_and_clients_may_be_named(from_environment: FromEnvironment) -> None:
    config = from_environment(COGNITO_USER_POOL_ID="eu-west-1_p", COGNITO_REGION="eu-west-1", COGNITO_CLIENT_IDS="a, b")

    assert config.issuers[0].urls[0] == "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_p"
    assert config.issuers[0].clients == {"a", "b"}


def test_an_oauth_issuer_is_enough_and_accepts_no_audience(from_environment: FromEnvironment) -> None:
    issuer = from_environment(OAUTH_ISSUER=URL).issuers[0]

    assert (issuer.urls, issuer.key_set_url, issuer.profile) == ((URL,), None, PROFILES["generic"])
    assert issuer.audience == frozenset()


def test_an_oauth_issuers_keys_and_audience_may_be_named(from_environment: FromEnvironment) -> None:
    issuer = from_environment(OAUTH_ISSUER=URL, OAUTH_JWKS_URL=f"{URL}/keys", OAUTH_AUDIENCE="a,b").issuers[0]

    assert (issuer.key_set_url, issuer.audience) == (f"{URL}/keys", {"a", "b"})


def test_an_oauth_issuer_that_is_a_user_pool_has_cognitos_profile(from_environment: FromEnvironment) -> None:
    issuer = from_environment(OAUTH_ISSUER=f"https://cognito-idp.us-east-1.amazonaws.com/{POOL}").issuers[0]

    assert issuer.profile == PROFILES["cognito"]


def test_the_addresses_have_defaults(from_environment: FromEnvironment) -> None:
    listen = from_environment(OAUTH_ISSUER=URL).listen

    assert (listen.host, listen.port, listen.metrics_port, listen.workers) == ("0.0.0.0", 8000, 9090, 1)


def test_the_addresses_may_be_named(from_environment: FromEnvironment) -> None:
    listen = from_environment(
        OAUTH_ISSUER=URL, M2M_HOST="127.0.0.1", M2M_PORT="1", M2M_METRICS_PORT="2", M2M_WORKERS="3"
    ).listen

    assert (listen.host, listen.port, listen.metrics_port, listen.workers) == ("127.0.0.1", 1, 2, 3)


def test_m2m_config_names_the_file(
    from_environment: FromEnvironment, write_config: WriteConfig, lab: dict[str, Any]
) -> None:
    path = write_config(lab)

    assert from_environment(M2M_CONFIG=str(path)).path == path


def test_a_file_may_leave_the_issuer_to_the_environment(
    from_environment: FromEnvironment, write_config: WriteConfig
) -> None:
    path = write_config("policies: {api: {scope: [read]}}")
    config = from_environment(M2M_CONFIG=str(path), OAUTH_ISSUER=URL)

    assert (config.issuers[0].name, "api" in config.policies.by_name) == ("oauth", True)


def test_the_files_issuers_take_precedence_and_the_log_names_the_unused_variable(
    from_environment: FromEnvironment, write_config: WriteConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = from_environment(M2M_CONFIG=str(write_config(lab)), OAUTH_ISSUER="https://other.example")

    assert [issuer.urls for issuer in config.issuers] == [(URL,)]
    assert "OAUTH_ISSUER" in caplog.text


def test_an_empty_variable_counts_as_unset(from_environment: FromEnvironment) -> None:
    config = from_environment(COGNITO_USER_POOL_ID="", COGNITO_REGION="", OAUTH_ISSUER=URL, M2M_PORT="", M2M_CONFIG="")

    assert (config.issuers[0].name, config.listen.port) == ("oauth", 8000)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({}, "no issuer: set COGNITO_USER_POOL_ID or OAUTH_ISSUER", id="nothing"),
        pytest.param({"COGNITO_USER_POOL_ID": POOL, "OAUTH_ISSUER": URL}, "give one", id="both issuers"),
        pytest.param({"OAUTH_ISSUER": "http://a.example"}, "OAUTH_ISSUER: must be https", id="issuer over plain http"),
        pytest.param(
            {"OAUTH_ISSUER": URL, "OAUTH_JWKS_URL": "http://a.example"}, "OAUTH_JWKS_URL: must be https", id="keys"
        ),
        pytest.param({"COGNITO_USER_POOL_ID": "a/b"}, "COGNITO_USER_POOL_ID: must be", id="pool"),
        pytest.param({"COGNITO_USER_POOL_ID": POOL, "COGNITO_REGION": "a.b"}, "COGNITO_REGION: must", id="region"),
        pytest.param({"COGNITO_USER_POOL_ID": POOL, "COGNITO_CLIENT_IDS": "é"}, "COGNITO_CLIENT_IDS: ", id="client"),
        pytest.param({"M2M_PORT": "65536"}, "M2M_PORT: ", id="port too large"),
        pytest.param({"M2M_WORKERS": "0"}, "M2M_WORKERS: ", id="no workers"),
        pytest.param({"M2M_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml: No such file", id="no such file"),
    ],
)
def test_a_variable_that_cannot_work_is_named(
    from_environment: FromEnvironment, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(**variables)

    assert message in "\n".join(caught.value.problems)


def test_every_wrong_variable_is_reported(from_environment: FromEnvironment) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(M2M_PORT="x", M2M_WORKERS="y")

    assert [one.partition(":")[0] for one in caught.value.problems] == ["M2M_PORT", "M2M_WORKERS"]
