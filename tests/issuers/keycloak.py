"""A Keycloak with one realm, configured by its admin REST API."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.stage import free_port
from tests.issuers.stage import PATIENCE, missing
from tests.programs import CACHE, running

AUDIENCE = "m2m-api"
PASSWORD = "password"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def _mapper(lightweight: bool = True) -> dict[str, Any]:
    config = {"included.custom.audience": AUDIENCE, "access.token.claim": "true"}
    config |= {"lightweight.claim": "true"} if lightweight else {}
    return {
        "name": "aud", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper", "config": config,
    }  # fmt: skip


def _client(name: str, *attributes: str, **more: Any) -> dict[str, Any]:
    return {
        "clientId": name, "secret": f"secret-of-{name}", "publicClient": False, "serviceAccountsEnabled": True,
        "directAccessGrantsEnabled": True, "protocolMappers": [_mapper()],
        "attributes": dict.fromkeys([*attributes, "standard.token.exchange.enabled"], "true"), **more,
    }  # fmt: skip


def _person(name: str) -> dict[str, Any]:
    return {
        "username": name, "enabled": True, "email": f"{name}@example.com", "emailVerified": True, "firstName": "A",
        "lastName": "B", "credentials": [{"type": "password", "value": PASSWORD}],
    }  # fmt: skip


LIGHTWEIGHT = "client.use.lightweight.access.token.enabled"
REALM = {
    "realm": "lab", "enabled": True, "sslRequired": "none",
    "clients": [
        _client("etl"),
        _client("Upper-Case"),
        _client("refreshing", "client_credentials.use_refresh_token"),
        _client("lightweight", LIGHTWEIGHT),
        _client("without-profile", defaultClientScopes=[]),
        _client("without-mapper", protocolMappers=[]),
        _client("lightweight-without-mapper", LIGHTWEIGHT, protocolMappers=[_mapper(lightweight=False)]),
        _client("web", serviceAccountsEnabled=False),
    ],
    # The second has the user name that a service account of the client `web` would have.
    "users": [_person("ann"), _person("service-account-web")],
}  # fmt: skip


class Keycloak:
    """`with Keycloak.started(folder) as keycloak:` it has the realm inside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.realm = f"{url}/realms/{REALM['realm']}"
        self._client = httpx.Client(trust_env=False, timeout=60)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path) -> Iterator[Keycloak]:
        """A Keycloak whose database is in ``folder``."""
        homes = [path.parent for path in CACHE.glob("keycloak-*/.ready")]
        if not homes:
            missing("Keycloak")
        home, port, management = max(homes), free_port(), free_port()
        shutil.copytree(home / "data" / "h2", folder / "h2")  # with the tables and the administrator
        command = [
            str(home / "bin" / "kc.sh"), "start", "--optimized", "--http-enabled=true", "--hostname-strict=false",
            "--http-host=127.0.0.1", f"--http-port={port}", f"--http-management-port={management}",
            f"--db-url=jdbc:h2:file:{folder}/h2/keycloakdb;NON_KEYWORDS=VALUE",
        ]  # fmt: skip
        ready = f"http://127.0.0.1:{management}/health/ready"
        heap = {"JAVA_OPTS_KC_HEAP": "-Xmx512m"}
        with running(command, folder / "log", ready, environment=heap, seconds=PATIENCE):
            keycloak = cls(f"http://127.0.0.1:{port}")
            with keycloak._client:
                keycloak._configure()
                yield keycloak

    def _configure(self) -> None:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        answer = self._client.post(f"{self.url}/realms/master/protocol/openid-connect/token", data=form)
        bearer = f"Bearer {answer.json()['access_token']}"
        self._client.post(f"{self.url}/admin/realms", json=REALM, headers={"Authorization": bearer}).raise_for_status()

    def grant(self, client: str, **form: str) -> dict[str, str]:
        """What the token endpoint answers; without ``form``, to the client credentials grant."""
        answer = self._client.post(
            f"{self.realm}/protocol/openid-connect/token",
            data=form or {"grant_type": "client_credentials"},
            auth=(client, f"secret-of-{client}"),
        )
        answer.raise_for_status()
        return dict(answer.json())

    def sign_in(self, client: str, name: str) -> dict[str, str]:
        """A person's tokens."""
        return self.grant(client, grant_type="password", username=name, password=PASSWORD, scope="openid")

    def exchange(self, client: str, token: str) -> str:
        """The access token that a client gets for another one (RFC 8693)."""
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return self.grant(client, grant_type=EXCHANGE, subject_token=token, subject_token_type=kind)["access_token"]
