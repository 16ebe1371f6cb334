"""The whole application with its issuers, asked as nginx asks, without a network and with a fixed clock."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import uvicorn
import yaml
from prometheus_client import generate_latest
from uvicorn.server import ServerState

from tests.unit.test_reasons import CONTRACT
from verifier.app import create_app
from verifier.config import Config
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.keys.fetch import Fetched, FetchError
from verifier.server.connection import Listener

from .tokens import CLAIMS, NOW, POOL, PREFIX, REPOSITORY, SIGNERS, Token, public_jwk

STATUS = {reason: status for status, reasons in CONTRACT.items() for reason in reasons.split()}
IDENTITY = ("x-m2m-client-id", "x-m2m-scope", "x-m2m-role", "x-m2m-issuer", "x-tenant-id", "x-level", "x-groups")
URL = b"https://api.example.com/db/orders"

MAIN: dict[str, Any] = yaml.safe_load(f"""
issuers:
  - {{name: homelab, cognito: {{user_pool_id: {POOL}}}}}
  - {{name: internal, issuer: "{CLAIMS["internal"]["iss"]}", algorithms: [HS256], audience: "api://m2m",
     jwks_file: internal.json}}
  - {{name: okta, profile: okta, issuer: "{CLAIMS["okta"]["iss"]}", audience: "api://default",
     jwks_url: "https://keys.example/okta"}}
  - {{name: mixed, issuer: "https://mixed.example.net", audience: any, algorithms: [RS256, PS256, ES256, ES384],
     jwks_url: "https://keys.example/mixed"}}
scope_prefix: {PREFIX}
policies:
  api:
    scope: [read]
    rules:
      - {{path: /db/**, methods: [GET, HEAD]}}
      - {{path: /db/**, methods: [POST, PUT, PATCH, DELETE], scope: [write]}}
      - {{path: /admin/**, any_scope: [admin, root]}}
  paths:
    rules:
      - {{path: /open/**}}
      - {{path: /shut/**, scope: [admin]}}
      - {{path: "/files/*/raw"}}
      - {{path: "/100%"}}
      - {{path: /, methods: [GET]}}
  narrow: {{clients: [generic/agent-1, homelab/agent-1], issuers: [generic, okta]}}
  watched: {{scope: [read], mode: report}}
  mcp:
    scope: [read]
    resource:
      url: https://api.example.com/mcp
      authorization_servers: ["https://id.example.net"]
      scopes_supported: [read, write]
roles:
  clients: {{generic/agent-1: "arn:aws:iam::123456789012:role/etl"}}
  scopes: {{admin: "arn:aws:iam::123456789012:role/admin"}}
revoked: {{clients: [okta/gone, banned], tokens: [jti-revoked]}}
headers: {{X-Tenant-ID: "custom:tenant", X-Level: level, X-Groups: groups}}
audit: "off"
""")
PROFILED = ("auth0", "entra", "keycloak", "rfc9068", "kubernetes", "github")
MAIN["issuers"] += [
    {
        "name": name,
        "profile": name if name in PROFILED else "generic",
        "issuer": CLAIMS[name]["iss"],
        "audience": ["api://m2m"],
        "algorithms": [SIGNERS[name][0]],
        "jwks_url": f"https://keys.example/{name}",
        "clients": [REPOSITORY] if name == "github" else None,
        "allow_users": name == "people",
    }
    for name in (*PROFILED, "generic", "twin", "es", "es384", "ps", "ed", "people", "dark")
]
# Every policy requires a role here.
STRICT = {**MAIN, "roles": {**MAIN["roles"], "scopes": {"query": "reader"}, "clients": {}, "required": True}}
# One issuer: client ids need no issuer's name.
SINGLE = {**MAIN, "issuers": MAIN["issuers"][:1], "policies": {}, "roles": {}, "revoked": {"clients": ["gone"]}}
# Every issuer has keys here.
REACHABLE = {**MAIN, "issuers": [issuer for issuer in MAIN["issuers"] if issuer["name"] != "dark"]}
CONFIGURATIONS = {"main": MAIN, "strict": STRICT, "single": SINGLE, "reachable": REACHABLE}

# What an HTTP parser takes as it is: it strips white space, and refuses the rest.
_FIELD_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_TARGET = re.compile(rb"[!\"$-~]+")
_PRINTABLE = re.compile(rb"[ -~]*")
_T = TypeVar("_T")
Headers = Sequence[tuple[bytes, bytes]]


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
        """The word for the decision."""
        return self.header("x-m2m-reason") or "ok"

    @property
    def identity(self) -> list[str | None]:
        """The values of all identity headers."""
        return [self.header(name) for name in IDENTITY]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What nginx asks with, beside the token: one Authorization header for each template in ``authorization``."""

    authorization: tuple[bytes, ...] = (b"Bearer %s",)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    path: str = "/verify"
    query: bytes = b""
    url: bytes | None = URL
    method: bytes | None = b"GET"

    def pairs(self, token: bytes | None) -> list[tuple[bytes, bytes]]:
        """The headers."""
        pairs = [] if token is None else [(b"authorization", it.replace(b"%s", token)) for it in self.authorization]
        given = [(b"x-original-url", self.url), (b"x-original-method", self.method)]
        return [*pairs, *((name, value) for name, value in given if value is not None), *self.headers]


def head(line: bytes, headers: Headers) -> bytes:
    """A request on a connection of its own."""
    return b"\r\n".join([line, *(b"%b: %b" % pair for pair in headers), b"connection: close", b"", b""])


def request_bytes(path: str, query: bytes, headers: Headers) -> bytes | None:
    """The request on a connection of its own; None where no HTTP parser would pass its parts on unchanged."""
    # The path is the one that the application sees, decoded.
    target = quote(path, safe="/!$&'()*+,;=:@").encode() + (b"?" + query if query else b"")
    if not _TARGET.fullmatch(target) or not all(_FIELD_VALUE.fullmatch(value) for _, value in headers):
        return None
    return head(b"GET %b HTTP/1.1" % target, headers)


def parse_answer(data: bytes) -> Answer:
    """Read one response."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    answer = Answer(int(status.split(b" ")[1]), [pair for pair in pairs if pair[0] != b"connection"], body)
    assert answer.header("content-length") == str(len(body))
    return answer


class RunningApp:
    """A running application. Use as a context manager."""

    def __init__(self, configuration: dict[str, Any], folder: Path) -> None:
        self.fetched: list[str] = []
        """Every URL that the application asked for."""
        self.connections = self.by_uvicorn = 0
        """How many requests came over connections, and how many of them uvicorn answered."""
        self._errors = BufferingHandler(1000)
        self._errors.addFilter(lambda record: record.levelno >= logging.ERROR or bool(record.exc_info))
        self._runner = asyncio.Runner()
        self.app = create_app(configure(configuration, folder), fetch=self._fetch, clock=lambda: NOW)
        self.service = self.app.service
        self._lifespan = self.service.lifespan(self.app)
        self._listener = Listener(self.service)
        self._uvicorn = uvicorn.Config(self._by_uvicorn, ws="none", log_config=None, interface="asgi3")
        self._state = ServerState()

    async def _fetch(self, url: str) -> Fetched:
        self.fetched.append(url)
        if url not in key_sets():
            raise FetchError("there is no key set")
        return Fetched(json.dumps(key_sets()[url]).encode(), None)

    def __enter__(self) -> RunningApp:
        logging.getLogger().addHandler(self._errors)
        self.run(self._lifespan.__aenter__())
        self.run(self.service.runtime.first_keys(10))
        assert {name for name, has_keys in self.service.ready()[1].items() if not has_keys} <= {"dark"}
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()
        logging.getLogger().removeHandler(self._errors)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the application's loop."""
        return self._runner.run(work)

    async def exchange(self, sent: bytes) -> Answer:
        """Send these bytes on a connection of their own, and read one answer."""
        self.connections += 1
        theirs, ours = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._listener(self._uvicorn, self._state, {}), ours
        )
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(sent)
        received = await reader.read()
        writer.close()
        return parse_answer(received)

    async def _by_uvicorn(self, scope: Any, receive: Any, send: Any) -> None:
        self.by_uvicorn += 1
        await self.app(scope, receive, send)

    async def _over_asgi(self, path: str, query: bytes, headers: Headers) -> Answer:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": query, "headers": list(headers),
            "client": None,
        }  # fmt: skip
        await self.app(scope, None, send)  # type: ignore[arg-type] # auth paths read no body
        start, body = sent
        return Answer(start["status"], [(name.lower(), value) for name, value in start["headers"]], body["body"])

    def send(self, headers: Headers, path: str = "/verify", query: bytes = b"", *, asgi: bool = False) -> Answer:
        """Send exactly these headers and return the answer, once its form has been checked; no error may be logged.

        The request goes over a connection. With ``asgi``, or where it holds bytes that no HTTP parser would pass on, it
        goes to the Starlette application, as another server might call it.
        """
        self._errors.buffer.clear()
        sent = None if asgi else request_bytes(path, query, headers)
        work = self._over_asgi(path, query, headers) if sent is None else self.exchange(sent)
        answer = self.run(work)
        check_form(answer)
        assert self._errors.buffer == []
        assert answer.status != 503 or not all(self.service.ready()[1].values())
        return answer

    def ask(self, token: Token | bytes | None = None, *, asgi: bool = False, **request: Any) -> Answer:
        """Send a Request with these fields and this token; None: without an Authorization header."""
        asked = Request(**request)
        encoded = token.encode() if isinstance(token, Token) else token
        return self.send(asked.pairs(encoded), asked.path, asked.query, asgi=asgi)

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of one metric."""
        found = [sample for family in self.service.collect() for sample in family.samples]
        return [(sample.labels, sample.value) for sample in found if sample.name == name]

    def decisions(self) -> Counter[tuple[int, str]]:
        """How many decisions were counted, by status and reason."""
        counted = Counter[tuple[int, str]]()
        for labels, value in self.samples("m2m_verifier_decisions_total"):
            counted[int(labels["status"]), labels["reason"]] += int(value)
        return counted

    def exposition(self) -> bytes:
        """The text of /metrics."""
        self.service.collect()
        return generate_latest(self.service.metrics.registry)


@cache
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


def configure(configuration: dict[str, Any], folder: Path) -> Config:
    """The configuration as a file has it, with the internal issuer's secret beside it."""
    (folder / "internal.json").write_text(json.dumps({"keys": [public_jwk("internal")]}))
    file = folder / "m2m.yaml"
    file.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return load(file, Environment())


def check_form(answer: Answer) -> None:
    """What holds for every answer, whatever was asked (contract, sections 1 and 3)."""
    assert answer.status in (200, 401, 403, 503)
    assert STATUS[answer.reason] == answer.status
    for name, value in answer.headers:
        assert _PRINTABLE.fullmatch(value), f"{name!r} holds {value!r}"
    assert None not in answer.identity
    assert answer.header("cache-control") == "no-store"
    assert sum(len(name) + len(value) + 4 for name, value in answer.headers) <= 3584
    if answer.status == 200:
        return
    assert not any(answer.identity)
    body = json.loads(answer.body)
    assert body.keys() == {"error", "error_description", "reason"}
    assert body["reason"] == answer.reason
    has_challenge = answer.status == 401 or answer.reason == "insufficient_scope"
    assert (answer.header("www-authenticate") is not None) == has_challenge
    assert (answer.header("retry-after") is not None) == (answer.status == 503)
