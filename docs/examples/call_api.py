"""Calls an API with a token that is fetched once and reused until it is about to expire: call_api.py URL [METHOD].

Needs httpx, and boto3 where API_SECRET_ID names a secret. Copy `ClientToken` and `credentials` into your agent.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Generator

import httpx


def credentials() -> dict[str, str]:
    """client_id, client_secret, token_url and scope. Read again for each token, so that a rotated secret is used."""
    if secret_id := os.environ.get("API_SECRET_ID"):
        import boto3

        secret = boto3.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]
        return dict(json.loads(secret))
    return {
        name: os.environ.get(f"API_{name.upper()}", "") for name in ("client_id", "client_secret", "token_url", "scope")
    }


class ClientToken(httpx.Auth):
    """One token for all requests and threads of a process."""

    def __init__(self, read: Callable[[], dict[str, str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self._current()
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        if answer.status_code == 401:  # once: if the new token is refused too, another one does not help
            request.headers["Authorization"] = f"Bearer {self._current(refused=token)}"
            yield request

    def _current(self, refused: str = "") -> str:
        with self._lock:  # a second thread uses the token that the first one fetched
            if self._token == refused or self._clock() >= self._renew_at:
                self._token, lifetime = self._fetch()
                self._renew_at = self._clock() + max(lifetime - 60, lifetime / 2)
            return self._token

    def _fetch(self) -> tuple[str, float]:
        client = self._read()
        form = {"grant_type": "client_credentials"} | ({"scope": client["scope"]} if client.get("scope") else {})
        who = (client["client_id"], client["client_secret"])
        answer = httpx.post(client["token_url"], auth=who, data=form, timeout=10)
        if answer.status_code != 200:  # `invalid_client`, `invalid_scope`: the text holds no secret
            raise RuntimeError(f"no token: {answer.status_code} {answer.text[:200]}")
        return answer.json()["access_token"], answer.json()["expires_in"]


def main(url: str, method: str = "GET") -> int:
    with httpx.Client(auth=ClientToken(credentials), timeout=30) as api:
        answer = api.request(method, url)
    print(answer.text)
    if not answer.is_success:
        print(f"call_api.py: HTTP {answer.status_code}", file=sys.stderr)
    return 0 if answer.is_success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
