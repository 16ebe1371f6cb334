"""Tokens of a real Keycloak."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stage import Serve
from tests.issuers.keycloak import Keycloak
from tests.issuers.stage import documented, fetch, verdict
from tests.programs import m2m_verifier

pytestmark = pytest.mark.timeout(600)  # Keycloak starts in half a minute, on a busy machine in some


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    with Keycloak.started(tmp_path_factory.mktemp("keycloak")) as started:
        yield started


@pytest.fixture(scope="module")
def serve(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(documented("Keycloak", issuer=keycloak.realm), tmp_path_factory.mktemp("verifier")) as started:
        yield started


@pytest.mark.parametrize("client", ["etl", "Upper-Case", "refreshing", "lightweight", "without-profile"])
def test_a_service_account_passes(keycloak: Keycloak, serve: Serve, client: str) -> None:
    assert verdict(serve, keycloak.grant(client)["access_token"]) == (200, client)


def test_the_pages_command_gets_a_token(keycloak: Keycloak, serve: Serve) -> None:
    token = fetch("Keycloak", "etl", "secret-of-etl", **{"sso.example.com/realms/lab": keycloak.realm})

    assert verdict(serve, token) == (200, "etl")


def test_a_service_account_passes_after_a_refresh_and_a_token_exchange(keycloak: Keycloak, serve: Serve) -> None:
    granted = keycloak.grant("refreshing")
    refreshed = keycloak.grant("refreshing", grant_type="refresh_token", refresh_token=granted["refresh_token"])
    exchanged = keycloak.exchange("refreshing", granted["access_token"])

    assert verdict(serve, refreshed["access_token"]) == verdict(serve, exchanged) == (200, "refreshing")


@pytest.mark.parametrize("client", ["without-mapper", "lightweight-without-mapper"])
def test_without_an_audience_mapper_the_audience_is_wrong(keycloak: Keycloak, serve: Serve, client: str) -> None:
    assert verdict(serve, keycloak.grant(client)["access_token"]) == (401, "wrong_audience")


@pytest.mark.parametrize("client", ["etl", "lightweight", "without-profile", "web"])
@pytest.mark.parametrize("name", ["ann", "service-account-web"])
def test_a_person_does_not_pass_before_or_after_a_token_exchange(
    keycloak: Keycloak, serve: Serve, client: str, name: str
) -> None:
    tokens = keycloak.sign_in(client, name)
    tried = [tokens["access_token"], tokens["id_token"], keycloak.exchange(client, tokens["access_token"])]

    assert [verdict(serve, token) for token in tried] == [(403, "not_m2m")] * 3


def test_the_key_for_encryption_is_skipped_and_the_other_one_used(keycloak: Keycloak, serve: Serve) -> None:
    status, printed, _ = m2m_verifier("check", "--online", "--config", serve.config)

    assert (status, printed.count("skipped")) == (0, 1)
    assert "issuer keycloak: usable keys: 1 (RS256 1)" in printed
