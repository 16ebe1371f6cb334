"""Where a request has two defects, the check that the contract names first gives the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import pytest

from verifier.reasons import Reason as R

from .running_app import MAIN, Request, RunningApp
from .tokens import CLAIMS, Token

# Everything that a valid token may do here requires a client, an issuer, a rule, a scope and a role.
CONFIGURATION = {
    **MAIN,
    "policies": {
        "narrow": {
            "clients": ["es/agent-1", "dark/agent-1", "twin/agent-1"],
            "issuers": ["es", "dark"],
            "rules": [{"path": "/db/**", "scope": ["read"]}, {"path": "/admin/**", "scope": ["read"]}],
            "resource": {"url": "https://api.example.com/db", "authorization_servers": ["https://id.example.net"]},
        },
        "mcp": MAIN["policies"]["mcp"],
    },
    "roles": {"scopes": {"query": "reader"}, "required": True},
}


@dataclass(frozen=True)
class Draft:
    """A request in the making: a valid one until a defect is added."""

    token: Token
    request: Request
    scopes: frozenset[str] = frozenset({"read", "query"})

    def header(self, **changes: Any) -> Draft:
        """With another header of the token."""
        return self.made(header={**self.token.header, **changes})  # type: ignore[dict-item] # never bytes here

    def claims(self, **changes: Any) -> Draft:
        """With other claims."""
        return self.made(claims={**self.token.claims, **changes})  # type: ignore[dict-item]

    def made(self, **changes: Any) -> Draft:
        """With another token."""
        return replace(self, token=replace(self.token, **changes))

    def sent(self, **changes: Any) -> Draft:
        """With another request."""
        return replace(self, request=replace(self.request, **changes))

    def narrowed(self, parameter: bytes) -> Draft:
        """With one more parameter on the auth URL."""
        return self.sent(query=b"&".join(filter(None, (self.request.query, parameter))))

    def reason(self, app: RunningApp) -> str:
        """The reason of the answer."""
        token = self.claims(scope=" ".join(sorted(self.scopes))).token
        return app.ask(token, **vars(self.request)).reason


Defect = tuple[str, R, Callable[[Draft], Draft]]
"""Its name, the reason that it alone causes, and how to add it."""

VALID = Draft(Token("es"), Request(path="/verify/narrow"))
# fmt: off
# In the contract's order.
STAGES: list[list[Defect]] = [
    [("unknown policy", R.UNKNOWN_POLICY, lambda it: it.sent(path="/verify/nope")),
     ("unknown parameter", R.BAD_AUTH_REQUEST, lambda it: it.narrowed(b"colour=red")),
     ("URL twice", R.BAD_AUTH_REQUEST, lambda it: it.sent(headers=((b"x-original-url", b"https://h/"),)))],
    [("no token", R.MISSING_TOKEN, lambda it: it.sent(authorization=())),
     ("two tokens", R.MALFORMED_TOKEN, lambda it: it.sent(authorization=(b"Bearer %s", b"Bearer %s"))),
     ("padding", R.MALFORMED_TOKEN, lambda it: it.made(edit=lambda token: token + b"==")),
     ("crit", R.MALFORMED_TOKEN, lambda it: it.header(crit=["x"], x=1))],
    [("algorithm", R.UNSUPPORTED_ALGORITHM, lambda it: it.header(alg="HS512"))],
    [("issuer", R.UNKNOWN_ISSUER, lambda it: it.claims(iss="https://evil.example"))],
    [("kid", R.UNKNOWN_KEY, lambda it: it.header(kid="unknown")),
     ("keys unavailable", R.KEYS_UNAVAILABLE, lambda it: it.made(issuer="dark").claims(iss=CLAIMS["dark"]["iss"]))],
    [("signature", R.BAD_SIGNATURE, lambda it: it.made(signature=lambda _: bytes(64)))],
    [("expired", R.EXPIRED, lambda it: it.claims(exp=1)),
     ("not yet valid", R.NOT_YET_VALID, lambda it: it.claims(nbf=2**40)),
     ("exp a string", R.INVALID_CLAIMS, lambda it: it.claims(exp="soon"))],
    [("person", R.NOT_M2M, lambda it: it.claims(sub="alice"))],
    [("audience", R.WRONG_AUDIENCE, lambda it: it.claims(aud="api://other"))],
    [("mapped claim", R.INVALID_CLAIMS, lambda it: it.claims(**{"custom:tenant": "a\r\nb"})),
     ("scope with a tab", R.INVALID_CLAIMS, lambda it: replace(it, scopes=it.scopes | {"a\tb"}))],
    [("bound to its sender", R.BAD_PROOF, lambda it: it.claims(cnf={"jkt": "0" * 43})),
     ("bound in an unknown way", R.BAD_PROOF, lambda it: it.claims(cnf={"kid": "1"}))],
    [("another resource", R.WRONG_AUDIENCE, lambda it: it.claims(aud=["api://m2m", "https://api.example.com/mcp"]))],
    [("revoked", R.REVOKED, lambda it: it.claims(jti="jti-revoked"))],
    [("client", R.CLIENT_NOT_ALLOWED, lambda it: it.narrowed(b"client=twin/agent-1"))],
    [("issuer not allowed", R.ISSUER_NOT_ALLOWED, lambda it: it.narrowed(b"issuer=twin"))],
    [("no rule", R.NO_MATCHING_RULE, lambda it: it.sent(url=b"https://h/nowhere")),
     ("ambiguous path", R.AMBIGUOUS_PATH, lambda it: it.sent(url=b"https://h/db/%2f"))],
    [("scope", R.INSUFFICIENT_SCOPE, lambda it: replace(it, scopes=it.scopes - {"read"}))],
    [("role", R.NO_ROLE, lambda it: replace(it, scopes=it.scopes - {"query"}))],
]
# fmt: on
DEFECTS = [defect for defects in STAGES for defect in defects]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(CONFIGURATION, tmp_path_factory.mktemp("order")) as made:
        yield made


def test_without_a_defect_the_request_is_allowed(app: RunningApp) -> None:
    assert VALID.reason(app) == R.OK


def test_alone_each_defect_gives_its_own_reason(app: RunningApp) -> None:
    assert {name: add(VALID).reason(app) for name, _, add in DEFECTS} == {name: reason for name, reason, _ in DEFECTS}


def test_of_two_defects_the_earlier_check_gives_the_reason(app: RunningApp) -> None:
    for earlier, later in combinations(STAGES, 2):
        for (name, reason, add), (later_name, _, add_later) in product(earlier, later):
            assert add(add_later(VALID)).reason(app) == reason, (name, later_name)


def test_of_all_defects_at_once_the_earliest_check_gives_the_reason(app: RunningApp) -> None:
    draft = VALID
    for defects in reversed(STAGES):
        name, reason, add = defects[0]
        draft = add(draft)
        assert draft.reason(app) == reason, name
