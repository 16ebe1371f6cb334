"""The part of AWS that the examples use, in front of the demo's issuer: Secrets Manager and Cognito's client secrets.

The real AWS clients talk to it (AWS_ENDPOINT_URL); it checks no signatures.
"""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from verifier.demo.issuer import Issuer, random_text

POOL = "us-east-1_Demo"


class Aws:
    """`secrets`: Secrets Manager's values by name. `requests`: the names of the API calls that arrived."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.secrets: dict[str, str] = {}
        self.requests: list[str] = []
        self.url = ""  # where it listens
        self._described: dict[str, dict[str, Any]] = {}
        self.app = Starlette(routes=[Route("/", self._answer, methods=["POST"])])

    def keep(self, name: str, client_id: str, secret: str, url: str = "") -> None:
        """Store a client's credentials, as terraform/ does."""
        url = url or f"{self.issuer.base}/oauth2/token"
        self.secrets[name] = json.dumps({"client_id": client_id, "client_secret": secret, "token_url": url})

    def stored(self, name: str) -> dict[str, str]:
        """A client's credentials."""
        found: dict[str, str] = json.loads(self.secrets[name])
        return found

    async def _answer(self, request: Request) -> JSONResponse:
        action = request.headers["X-Amz-Target"].partition(".")[2]
        self.requests.append(action)
        return JSONResponse(getattr(self, action)(await request.json()), media_type="application/x-amz-json-1.1")

    def GetSecretValue(self, given: Mapping[str, str]) -> dict[str, Any]:
        return {"Name": given["SecretId"], "SecretString": self.secrets[given["SecretId"]]}

    def PutSecretValue(self, given: Mapping[str, str]) -> dict[str, Any]:
        self.secrets[given["SecretId"]] = given["SecretString"]
        return {"Name": given["SecretId"], "VersionStages": ["AWSCURRENT"]}

    def AddUserPoolClientSecret(self, given: Mapping[str, str]) -> dict[str, Any]:
        secrets = self._secrets(given)
        assert len(secrets) < 2, "Cognito keeps two secrets for each client"
        secrets.append(random_text(51))
        return {"ClientSecretDescriptor": self._describe(secrets[-1]) | {"ClientSecretValue": secrets[-1]}}

    def ListUserPoolClientSecrets(self, given: Mapping[str, str]) -> dict[str, Any]:
        return {"ClientSecrets": [self._describe(secret) for secret in self._secrets(given)]}

    def DeleteUserPoolClientSecret(self, given: Mapping[str, str]) -> dict[str, Any]:
        secrets = self._secrets(given)
        assert len(secrets) > 1, "Cognito does not delete the last secret"
        secrets[:] = [one for one in secrets if self._describe(one)["ClientSecretId"] != given["ClientSecretId"]]
        return {}

    def _secrets(self, given: Mapping[str, str]) -> list[str]:
        assert given["UserPoolId"] == POOL
        return self.issuer.clients[given["ClientId"]].secrets

    def _describe(self, secret: str) -> dict[str, Any]:
        new = {"ClientSecretId": str(uuid.uuid4()), "ClientSecretCreateDate": time.time()}
        return self._described.setdefault(secret, new)
