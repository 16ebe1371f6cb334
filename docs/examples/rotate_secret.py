"""Gives a Cognito client a new secret without refusing a request: rotate_secret.py begin|finish SECRET_ID.

`begin` adds a second secret at Cognito, tries it, and writes it to AWS Secrets Manager. Callers use it from their next
token on. `finish`, run when every caller uses the new secret, deletes the old one. Needs boto3 and httpx.
"""

import argparse
import json
import os
import sys
import time
from typing import Any

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

TRIES = 10  # it may take some seconds until Cognito accepts a new secret everywhere


class RotationError(Exception):
    """The rotation cannot continue; the message says what to do first."""


class Rotation:
    """One client's secrets: Cognito lists their ids, Secrets Manager holds the value."""

    def __init__(self, pool: str, secret_id: str) -> None:
        self._cognito: Any = boto3.client("cognito-idp")
        self._store: Any = boto3.client("secretsmanager")
        self._secret_id = secret_id
        self._stored = json.loads(self._store.get_secret_value(SecretId=secret_id)["SecretString"])
        self._client = {"UserPoolId": pool, "ClientId": self._stored["client_id"]}

    def _known(self) -> dict[str, Any]:
        listed = self._cognito.list_user_pool_client_secrets(**self._client)["ClientSecrets"]
        return {secret["ClientSecretId"]: secret for secret in listed}

    def begin(self) -> str:
        """Afterwards both secrets are valid."""
        if len(self._known()) > 1:
            raise RotationError("the client has two secrets: finish the last rotation first")
        added = self._cognito.add_user_pool_client_secret(**self._client)["ClientSecretDescriptor"]
        new = {"client_secret": added["ClientSecretValue"], "client_secret_id": added["ClientSecretId"]}
        changed = self._stored | new
        try:
            self._try(changed)
        except BaseException:  # no caller has it yet
            self._cognito.delete_user_pool_client_secret(**self._client, ClientSecretId=added["ClientSecretId"])
            raise
        self._store.put_secret_value(SecretId=self._secret_id, SecretString=json.dumps(changed))
        return "both secrets are valid; run finish when every caller has fetched a new token"

    def _try(self, changed: dict[str, str]) -> None:
        form = {"grant_type": "client_credentials"} | ({"scope": changed["scope"]} if changed.get("scope") else {})
        who = (changed["client_id"], changed["client_secret"])
        for left in reversed(range(TRIES)):
            answer = httpx.post(changed["token_url"], auth=who, data=form, timeout=10)
            if answer.status_code == 200:
                return
            if left:
                time.sleep(1)
        raise RotationError(f"no token with the new secret ({answer.status_code}); it was deleted again")

    def finish(self, overlap: float) -> str:
        """Afterwards only the stored secret is valid. `overlap` is in seconds."""
        known = self._known()
        current = known.pop(self._stored.get("client_secret_id"), None)
        if current is None:
            raise RotationError("Secrets Manager does not say which secret it holds: run begin first")
        age = time.time() - current["ClientSecretCreateDate"].timestamp()
        if known and age < overlap:
            raise RotationError(f"callers may still use the old secret: run finish in {overlap - age:.0f} s")
        for old in known:
            self._cognito.delete_user_pool_client_secret(**self._client, ClientSecretId=old)
        return f"{len(known)} old secret(s) deleted"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rotate the secret of a Cognito client without refusing a request.")
    parser.add_argument("step", choices=["begin", "finish"])
    parser.add_argument("secret_id", help="its name or ARN in Secrets Manager")
    parser.add_argument("--pool", default=os.environ.get("COGNITO_USER_POOL_ID"), help="(COGNITO_USER_POOL_ID)")
    parser.add_argument("--overlap", type=float, default=7200, help="seconds for which both stay valid (%(default)s)")
    options = parser.parse_args(arguments)
    if not options.pool:
        parser.error("--pool or COGNITO_USER_POOL_ID is needed")
    try:
        rotation = Rotation(options.pool, options.secret_id)
        print(rotation.begin() if options.step == "begin" else rotation.finish(options.overlap))
    except (RotationError, BotoCoreError, ClientError, httpx.HTTPError) as error:
        print(f"rotate_secret.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
