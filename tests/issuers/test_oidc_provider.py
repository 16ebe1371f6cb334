"""Tokens of panva's oidc-provider, which follow RFC 9068 where the request names a resource (RFC 8707)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stage import Serve, free_port
from tests.issuers.stage import PATIENCE, documented, fetch, program, verdict
from tests.programs import running

pytestmark = pytest.mark.timeout(600)

RESOURCE = "https://api.example.com/"
OTHER = "https://other.example.com/"
CALLBACK = "https://web.example/callback"


class OidcProvider:
    """The authorization server of oidc_provider.mjs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def token(self, client: str, **form: str) -> dict[str, str]:
        """What the token endpoint answers."""
        auth = (client, f"secret-of-{client}")
        answer = httpx.post(f"{self.url}/token", data=form, auth=auth, trust_env=False, timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    def sign_in(self, name: str) -> dict[str, str]:
        """A person's tokens for RESOURCE, by the code flow: the forms of sign-in and consent, then the code."""
        verifier = "v" * 43
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": "web", "response_type": "code", "scope": "openid read", "redirect_uri": CALLBACK,
            "resource": RESOURCE, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60) as browser:
            answer = browser.get("/auth", params=query)
            while not answer.headers.get("location", "").startswith(CALLBACK):
                if answer.is_redirect:
                    answer = browser.get(answer.headers["location"])
                else:
                    form = re.search(r'action="([^"]+)".*?name="prompt" value="(\w+)"', answer.text, re.DOTALL)
                    assert form, answer.text
                    answer = browser.post(form[1], data={"prompt": form[2], "login": name, "password": "any"})
        code = httpx.URL(answer.headers["location"]).params["code"]
        return self.token(
            "web", grant_type="authorization_code", code=code, redirect_uri=CALLBACK, code_verifier=verifier,
            resource=RESOURCE,
        )  # fmt: skip


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    node, port = program("node"), free_port()
    command = [node, str(Path(__file__).with_name("oidc_provider.mjs")), str(Path(node).parents[1]), str(port)]
    started = OidcProvider(f"http://127.0.0.1:{port}")
    with running(command, tmp_path_factory.mktemp("op") / "log", f"{started.url}/jwks", seconds=PATIENCE):
        yield started


@pytest.fixture(scope="module")
def serve(provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    configuration = documented("oidc-provider and RFC 9068", issuer=provider.url)
    with Serve(configuration, tmp_path_factory.mktemp("verifier")) as started:
        yield started


def test_a_client_passes_with_the_token_that_the_pages_command_gets(provider: OidcProvider, serve: Serve) -> None:
    token = fetch("oidc-provider and RFC 9068", "etl", "secret-of-etl", **{"op.example.com": provider.url})
    answer = serve.ask(token)

    assert answer.status_code == 200
    assert (answer.headers["X-M2M-Client-ID"], answer.headers["X-M2M-Scope"]) == ("etl", "read")


@pytest.mark.parametrize(
    ("resource", "reason"), [({"resource": OTHER}, "wrong_audience"), ({}, "malformed_token")], ids=["other", "none"]
)
def test_a_token_for_another_resource_or_for_none_does_not_pass(
    provider: OidcProvider, serve: Serve, resource: dict[str, str], reason: str
) -> None:
    token = provider.token("etl", grant_type="client_credentials", scope="read", **resource)["access_token"]

    assert verdict(serve, token) == (401, reason)


@pytest.mark.parametrize("kind", ["access_token", "id_token"])
def test_a_persons_token_does_not_pass(provider: OidcProvider, serve: Serve, kind: str) -> None:
    assert verdict(serve, provider.sign_in("ann")[kind]) == (403, "not_m2m")
