"""The whole application with its issuers, asked as nginx asks, without a network and with a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from verifier.app import create_app
from verifier.config import Config
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.keys.fetch import Fetched, FetchError

from .tokens import CLAIMS, NOW, POOL, PREFIX, REPOSITORY, SIGNERS, Token, public_jwk

# The contract's own closed set: what the code says is compared with it.
STATUS = {
    "ok": 200,
    "missing_token": 401,
    "malformed_token": 401,
    "unsupported_algorithm": 401,
    "unknown_issuer": 401,
    "unknown_key": 401,
    "bad_signature": 401,
    "expired": 401,
    "not_yet_valid": 401,
    "wrong_audience": 401,
    "invalid_claims": 401,
    "bad_proof": 401,
    "revoked": 401,
    "not_m2m": 403,
    "client_not_allowed": 403,
    "issuer_not_allowed": 403,
    "insufficient_scope": 403,
    "no_role": 403,
    "no_matching_rule": 403,
    "ambiguous_path": 403,
    "unknown_policy": 403,
    "bad_auth_request": 403,
    "headers_too_large": 403,
    "keys_unavailable": 503,
    "internal_error": 503,
}

ALWAYS_SENT = ("x-m2m-client-id", "x-m2m-scope", "x-m2m-role", "x-m2m-issuer", "x-tenant-id", "x-level", "x-groups")
URL = b"https://api.example.com/db/orders"
_PRINTABLE = re.compile(rb"[ -~]*")

PROFILED = ("auth0", "entra", "keycloak", "rfc9068", "kubernetes", "github")
PLAIN = ("generic", "twin", "es", "es384", "ps", "ed", "people", "dark")

MAIN: dict[str, Any] = {
    "issuers": [
        {"name": "homelab", "cognito": {"user_pool_id": POOL}},
        {
            "name": "internal",
            "issuer": CLAIMS["internal"]["iss"],
            "algorithms": ["HS256"],
            "audience": "api://m2m",
            "jwks_file": "internal.json",
        },
        {
            "name": "okta",
            "profile": "okta",
            "issuer": CLAIMS["okta"]["iss"],
            "audience": "api://default",
            "jwks_url": "https://keys.example/okta",
        },
        *(
            {
                "name": name,
                "profile": name if name in PROFILED else "generic",
                "issuer": CLAIMS[name]["iss"],
                "audience": ["api://m2m"],
                "algorithms": [SIGNERS[name].algorithm],
                "jwks_url": f"https://keys.example/{name}",
                "clients": [REPOSITORY] if name == "github" else None,
                "allow_users": name == "people",
            }
            for name in (*PROFILED, *PLAIN)
        ),
        {
            "name": "mixed",
            "issuer": "https://mixed.example.net",
            "audience": "any",
            "algorithms": ["RS256", "PS256", "ES256", "ES384"],
            "jwks_url": "https://keys.example/mixed",
        },
    ],
    "scope_prefix": PREFIX,
    "policies": {
        "api": {
            "scope": ["read"],
            "rules": [
                {"path": "/db/**", "methods": ["GET", "HEAD"]},
                {"path": "/db/**", "methods": ["POST", "PUT", "PATCH", "DELETE"], "scope": ["write"]},
                {"path": "/admin/**", "any_scope": ["admin", "root"]},
            ],
        },
        "paths": {
            "rules": [
                {"path": "/open/**"},
                {"path": "/shut/**", "scope": ["admin"]},
                {"path": "/files/*/raw"},
                {"path": "/100%"},
                {"path": "/", "methods": ["GET"]},
            ]
        },
        "narrow": {"clients": ["generic/agent-1", "homelab/agent-1"], "issuers": ["generic", "okta"]},
        "watched": {"scope": ["read"], "mode": "report"},
        "mcp": {
            "scope": ["read"],
            "resource": {
                "url": "https://api.example.com/mcp",
                "authorization_servers": ["https://id.example.net"],
                "scopes_supported": ["read", "write"],
            },
        },
    },
    "roles": {
        "clients": {"generic/agent-1": "arn:aws:iam::123456789012:role/etl"},
        "scopes": {"admin": "arn:aws:iam::123456789012:role/admin"},
    },
    "revoked": {"clients": ["okta/gone", "banned"], "tokens": ["jti-revoked"]},
    "headers": {"X-Tenant-ID": "custom:tenant", "X-Level": "level", "X-Groups": "groups"},
}
# Every policy asks for a role here.
STRICT = {**MAIN, "roles": {**MAIN["roles"], "scopes": {"query": "reader"}, "clients": {}, "required": True}}
# One issuer: client ids stand alone.
SINGLE = {**MAIN, "issuers": MAIN["issuers"][:1], "policies": {}, "roles": {}, "revoked": {"clients": ["gone"]}}
CONFIGURATIONS = {"main": MAIN, "strict": STRICT, "single": SINGLE}


class Answer(NamedTuple):
    """What came back, with header names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the one header of this name, None where there is none."""
        found = [value.decode("ascii") for key, value in self.headers if key == name.encode()]
        assert len(found) < 2, f"{name} is sent {len(found)} times"
        return found[0] if found else None

    @property
    def reason(self) -> str:
        """The word for the decision, as far as the answer tells it."""
        return self.header("x-m2m-reason") or "ok"


class World:
    """A running application. Use as a context manager.

    Its audit is off unless ``audit_file`` is named: then what the program writes on stdout goes there.
    """

    def __init__(self, configuration: dict[str, Any], folder: Path, audit_file: Path | None = None) -> None:
        self.fetched: list[str] = []
        """Every URL that the application asked for."""
        self._audit_file = audit_file
        self._stdout = -1
        self._runner = asyncio.Runner()
        self.config = configure({**configuration, "audit": "off" if audit_file is None else "all"}, folder)
        self.app = create_app(self.config, fetch=self._fetch, clock=lambda: NOW)
        self.service = self.app.service
        self._lifespan = self.service.lifespan(self.app)

    async def _fetch(self, url: str) -> Fetched:
        self.fetched.append(url)
        if url not in key_sets():
            raise FetchError("nothing is there")
        return Fetched(json.dumps(key_sets()[url]).encode(), None)

    def __enter__(self) -> World:
        if self._audit_file is not None:
            self._stdout = os.dup(1)
            with self._audit_file.open("wb") as file:
                os.dup2(file.fileno(), 1)
        self._runner.run(self._lifespan.__aenter__())
        self._runner.run(self._until_ready())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()
        if self._audit_file is not None:
            os.dup2(self._stdout, 1)
            os.close(self._stdout)

    async def _until_ready(self) -> None:
        for _ in range(2000):
            answer = await self._call("/ready", b"", [])
            without_keys = {name for name, there in json.loads(answer.body)["issuers"].items() if not there}
            if without_keys <= {"dark"}:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"no keys for {without_keys}")

    async def _call(
        self, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]], method: str = "GET"
    ) -> Answer:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": list(headers),
            "client": ("10.0.0.7", 40000),
            "server": ("10.0.0.8", 8000),
        }
        await self.app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], [(name.lower(), value) for name, value in sent[0]["headers"]], body)

    def send(self, headers: Iterable[tuple[bytes, bytes]], path: str = "/verify", query: bytes = b"") -> Answer:
        """Send exactly these headers and return the answer, once it is found well formed."""
        answer = self._runner.run(self._call(path, query, headers))
        check_form(answer)
        return answer

    def ask(
        self,
        token: Token | bytes | None = None,
        *,
        path: str = "/verify",
        query: bytes = b"",
        url: bytes | None = URL,
        method: bytes | None = b"GET",
        authorization: Iterable[bytes] = (b"Bearer %s",),
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> Answer:
        """Ask as nginx does, with one Authorization header for each template in ``authorization``."""
        encoded = token.encode() if isinstance(token, Token) else token
        pairs = [] if encoded is None else [(b"authorization", form.replace(b"%s", encoded)) for form in authorization]
        if url is not None:
            pairs.append((b"x-original-url", url))
        if method is not None:
            pairs.append((b"x-original-method", method))
        return self.send([*pairs, *headers], path, query)

    def decisions(self) -> dict[tuple[str, str], float]:
        """How many decisions were counted, by status and reason."""
        counted: dict[tuple[str, str], float] = {}
        for sample in self._samples("m2m_verifier_decisions_total"):
            key = sample.labels["status"], sample.labels["reason"]
            counted[key] = counted.get(key, 0) + sample.value
        return counted

    def _samples(self, name: str) -> list[Any]:
        families = self.service.collect()
        return [sample for family in families for sample in family.samples if sample.name == name]

    def exposition(self) -> bytes:
        """The text of /metrics."""
        self.service.collect()
        return generate_latest(self.service.metrics.registry)


def key_sets() -> dict[str, dict[str, Any]]:
    """What the issuers publish, by URL."""
    remote = [name for name in SIGNERS if name not in ("homelab", "internal", "dark", "rogue")]
    published = {f"https://keys.example/{name}": {"keys": [public_jwk(name)]} for name in remote}
    published[f"{CLAIMS['homelab']['iss']}/.well-known/jwks.json"] = {"keys": [public_jwk("homelab")]}
    published["https://keys.example/mixed"] = {
        "keys": [
            public_jwk("rogue", kid="rsa-1", alg="RS256"),
            public_jwk("es", kid="ec-1"),
            public_jwk("ps", kid="encryption-1", use="enc"),
        ]
    }
    return published


def configure(written: dict[str, Any], folder: Path) -> Config:
    """The configuration as a file has it (JSON is YAML), with the internal issuer's secret beside it."""
    (folder / "internal.json").write_text(json.dumps({"keys": [public_jwk("internal")]}))
    file = folder / "m2m.yaml"
    file.write_text(json.dumps(written))
    return load(file, Environment())


def check_form(answer: Answer) -> None:
    """What holds for every answer, whatever was asked (contract, sections 1 and 3)."""
    assert answer.status in (200, 401, 403, 503)
    assert STATUS[answer.reason] == answer.status
    for name, value in answer.headers:
        assert _PRINTABLE.fullmatch(value), f"{name!r} holds {value!r}"
    for name in ALWAYS_SENT:
        assert answer.header(name) is not None, f"{name} is not sent"
    assert answer.header("cache-control") == "no-store"
    assert sum(len(name) + len(value) + 4 for name, value in answer.headers) <= 3584
    if answer.status == 200:
        return
    assert all(answer.header(name) == "" for name in ALWAYS_SENT)
    body = json.loads(answer.body)
    assert body.keys() == {"error", "error_description", "reason"}
    assert body["reason"] == answer.reason
    assert (answer.header("www-authenticate") is not None) == (
        answer.status == 401 or answer.reason == "insufficient_scope"
    )
    assert (answer.header("retry-after") is not None) == (answer.status == 503)
