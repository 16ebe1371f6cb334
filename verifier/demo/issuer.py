"""A token issuer that speaks AWS Cognito's shape: key set, discovery, client-credentials grant.

Its keys and secrets are made at the start and kept in memory only. Tests use the same object to sign tokens that no
real issuer would sign, to rotate keys and secrets, and to set the time (`clock`).
"""

import base64
import hmac
import json
import secrets
import string
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from verifier.demo.oauth import OAuthError, credentials, parse_form

LIFETIME = 3600
"""Seconds that a token is valid, Cognito's default."""

Claims = dict[str, Any]


def random_text(length: int) -> str:
    """Lower-case letters and digits, as Cognito writes client ids and secrets."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


@dataclass
class Client:
    """A machine: the scopes it may have, without prefix, and its secrets. Each secret is accepted: two can overlap.

    `claims` are added to its tokens, as a pre-token-generation trigger does.
    """

    scopes: Sequence[str]
    secrets: list[str] = field(default_factory=lambda: [random_text(51)])
    claims: Claims = field(default_factory=dict)


@dataclass
class SigningKey:
    """An RSA key pair of 2,048 bits and its key id."""

    kid: str = field(default_factory=lambda: b64url(secrets.token_bytes(32)))
    private: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def jwk(self) -> dict[str, str]:
        """The public half (RFC 7517)."""
        numbers = self.private.public_key().public_numbers()
        n, e = (b64url(number.to_bytes((number.bit_length() + 7) // 8)) for number in (numbers.n, numbers.e))
        return {"alg": "RS256", "e": e, "kid": self.kid, "kty": "RSA", "n": n, "use": "sig"}


class Issuer:
    """One user pool, its resource server (`prefix`) and its clients. `base` is the URL that its app is reached at."""

    def __init__(
        self,
        base: str,
        *,
        pool: str = "us-east-1_Demo",
        prefix: str = "https://api.lab.informationcart.com/",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.base = base
        self.url = f"{base}/{pool}"  # the `iss` of its tokens
        self.jwks_url = f"{self.url}/.well-known/jwks.json"
        self.prefix = prefix
        self.clients: dict[str, Client] = {}
        self.resources: set[str] = set()  # those that `resource` may name; empty: it is ignored, as Cognito does
        self.keys = [SigningKey()]  # the first one signs, all are published
        self.clock = clock
        self.app = Starlette(
            routes=[
                Route(f"/{pool}/.well-known/jwks.json", self._jwks),
                Route(f"/{pool}/.well-known/openid-configuration", self._discovery),
                Route(f"/.well-known/oauth-authorization-server/{pool}", self._discovery),  # RFC 8414 section 3.1
                Route("/oauth2/token", self._token, methods=["POST"]),
            ]
        )

    def add_client(self, *scopes: str) -> tuple[str, str]:
        """Register a client with these scopes; its id and secret."""
        client_id, client = random_text(26), Client(scopes)
        self.clients[client_id] = client
        return client_id, client.secrets[0]

    def rotate(self) -> str:
        """Sign with a new key and keep the old ones published; returns the new key's id."""
        self.keys.insert(0, SigningKey())
        return self.keys[0].kid

    def drop_old_keys(self) -> None:
        """Publish only the signing key."""
        del self.keys[1:]

    def machine_claims(self, client_id: str, scopes: Sequence[str], lifetime: float = LIFETIME) -> Claims:
        """The claims of Cognito's client-credentials tokens; scopes without prefix, `lifetime` in seconds."""
        scope = " ".join(self.prefix + scope for scope in scopes)
        added = self.clients[client_id].claims if client_id in self.clients else {}
        return self._claims(lifetime, sub=client_id, client_id=client_id, scope=scope) | added

    def person_claims(
        self, username: str, client_id: str, groups: Sequence[str] = (), lifetime: float = LIFETIME
    ) -> Claims:
        """The claims of a person's access token, which also has a `client_id`."""
        claims = self._claims(lifetime, sub=str(uuid.uuid4()), client_id=client_id, scope="openid profile")
        extra = {"cognito:groups": list(groups)} if groups else {}
        return claims | extra | {"username": username, "origin_jti": str(uuid.uuid4()), "event_id": str(uuid.uuid4())}

    def _claims(self, lifetime: float, **claims: str) -> Claims:
        now = int(self.clock())
        times = {"auth_time": now, "iat": now, "exp": int(now + lifetime)}
        return {"token_use": "access", "iss": self.url, "version": 2, "jti": str(uuid.uuid4())} | claims | times

    def mint(
        self, claims: Claims | bytes, *, header: Mapping[str, Any] | None = None, key: SigningKey | None = None
    ) -> str:
        """A token with exactly these claims, signed RS256 whatever they and the header say.

        `header` is merged over `alg` and `kid`; claims given as bytes are not encoded again; `key` defaults to the
        current signing key.
        """
        key = key or self.keys[0]
        head = json.dumps({"kid": key.kid, "alg": "RS256"} | dict(header or {})).encode()
        body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signed = f"{b64url(head)}.{b64url(body)}"
        return f"{signed}.{b64url(key.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def grant(self, client_id: str, secret: str, scope: str | None = None, resource: str | None = None) -> str:
        """A token for a client with its secret, with the requested scopes (with prefix) or all that it may have.

        `resource` is its audience (RFC 8707), where there are `resources`.

        Raises:
            OAuthError: `invalid_client`, `invalid_scope` or `invalid_target`.
        """
        client = self.clients.get(client_id)
        known = client.secrets if client else [random_text(51)]  # an unknown client costs a comparison too
        matches = [hmac.compare_digest(secret.encode(), one.encode()) for one in known]
        if client is None or not any(matches):
            raise OAuthError("invalid_client")
        granted = [name for name in client.scopes if scope is None or self.prefix + name in scope.split()]
        if scope is not None and len(granted) < len(set(scope.split())):
            raise OAuthError("invalid_scope")
        claims = self.machine_claims(client_id, granted)
        if self.resources and resource is not None:
            if resource not in self.resources:
                raise OAuthError("invalid_target")
            claims["aud"] = resource
        return self.mint(claims)

    async def _jwks(self, _: Request) -> JSONResponse:
        keys = [key.jwk() for key in self.keys]
        return JSONResponse({"keys": keys}, headers={"Cache-Control": "public, max-age=300"})

    async def _discovery(self, _: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": self.url,
                "jwks_uri": self.jwks_url,
                "authorization_endpoint": f"{self.base}/oauth2/authorize",  # which MCP clients require to be named
                "token_endpoint": f"{self.base}/oauth2/token",
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "grant_types_supported": ["client_credentials"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": sorted({self.prefix + s for c in self.clients.values() for s in c.scopes}),
            }
        )

    async def _token(self, request: Request) -> JSONResponse:
        headers = {"Cache-Control": "no-store"}
        try:
            form = parse_form(await request.body())
            client = credentials(request.headers.get("Authorization"), form)
            token = self.grant(*client, form.get("scope"), form.get("resource"))
        except OAuthError as error:
            status = 400
            if str(error) == "invalid_client":
                status, headers["WWW-Authenticate"] = 401, 'Basic realm="token"'
            return JSONResponse({"error": str(error)}, status, headers)
        return JSONResponse({"access_token": token, "expires_in": LIFETIME, "token_type": "Bearer"}, 200, headers)


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
