"""As much of AWS as the examples ask for, in front of the demo's issuer: Secrets Manager and Cognito's client secrets.

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
    """`secrets` are Secrets Manager's, by name. `created` says since when Cognito has each secret of a client."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.secrets: dict[str, str] = {}
        self.asked: list[str] = []
        self._ids: dict[str, tuple[str, float]] = {}
        self.app = Starlette(routes=[Route("/", self._answer, methods=["POST"])])

    def keep(self, name: str, client_id: str, secret: str) -> None:
        """Store a client's credentials, as terraform/ does."""
        url = f"{self.issuer.base}/oauth2/token"
        self.secrets[name] = json.dumps({"client_id": client_id, "client_secret": secret, "token_url": url})

    def stored(self, name: str) -> dict[str, str]:
        """A client's credentials."""
        found: dict[str, str] = json.loads(self.secrets[name])
        return found

    async def _answer(self, request: Request) -> JSONResponse:
        action = request.headers["X-Amz-Target"].partition(".")[2]
        self.asked.append(action)
        return JSONResponse(getattr(self, action)(await request.json()), media_type="application/x-amz-json-1.1")

    def GetSecretValue(self, asked: Mapping[str, str]) -> dict[str, Any]:
        return {"Name": asked["SecretId"], "SecretString": self.secrets[asked["SecretId"]]}

    def PutSecretValue(self, asked: Mapping[str, str]) -> dict[str, Any]:
        self.secrets[asked["SecretId"]] = asked["SecretString"]
        return {"Name": asked["SecretId"], "VersionStages": ["AWSCURRENT"]}

    def AddUserPoolClientSecret(self, asked: Mapping[str, str]) -> dict[str, Any]:
        known = self._secrets(asked)
        assert len(known) < 2, "Cognito keeps two secrets for each client"
        known.append(random_text(51))
        return {"ClientSecretDescriptor": self._told(known[-1]) | {"ClientSecretValue": known[-1]}}

    def ListUserPoolClientSecrets(self, asked: Mapping[str, str]) -> dict[str, Any]:
        return {"ClientSecrets": [self._told(secret) for secret in self._secrets(asked)]}

    def DeleteUserPoolClientSecret(self, asked: Mapping[str, str]) -> dict[str, Any]:
        known = self._secrets(asked)
        assert len(known) > 1, "Cognito does not delete the last secret"
        known[:] = [secret for secret in known if self._told(secret)["ClientSecretId"] != asked["ClientSecretId"]]
        return {}

    def _secrets(self, asked: Mapping[str, str]) -> list[str]:
        assert asked["UserPoolId"] == POOL
        return self.issuer.clients[asked["ClientId"]].secrets

    def _told(self, secret: str) -> dict[str, Any]:
        number, created = self._ids.setdefault(secret, (str(uuid.uuid4()), time.time()))
        return {"ClientSecretId": number, "ClientSecretCreateDate": created}
