"""Where a request has two defects, the check that the contract names first gives the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from verifier.reasons import Reason as R

from .cases import Request
from .tokens import CLAIMS, Token
from .world import MAIN, World

# Everything that a good token may do here needs a client, an issuer, a rule, a scope and a role.
CONFIGURATION = {
    **MAIN,
    "policies": {
        "narrow": {
            "clients": ["generic/agent-1", "dark/agent-1", "twin/agent-1"],
            "issuers": ["generic", "dark"],
            "rules": [{"path": "/db/**", "scope": ["read"]}, {"path": "/admin/**", "scope": ["read"]}],
        }
    },
    "roles": {"scopes": {"query": "reader"}, "required": True},
}


@dataclass(frozen=True)
class Asked:
    """A request in the making: an ordinary one until a defect is added."""

    token: Token
    request: Request
    scopes: frozenset[str] = frozenset({"read", "query"})

    def header(self, **changes: Any) -> Asked:
        """With another header of the token."""
        return replace(self, token=replace(self.token, header={**_mapping(self.token.header), **changes}))

    def claims(self, **changes: Any) -> Asked:
        """With other claims."""
        return replace(self, token=replace(self.token, claims={**_mapping(self.token.claims), **changes}))

    def asking(self, **changes: Any) -> Asked:
        """With another request."""
        return replace(self, request=replace(self.request, **changes))

    def send(self, world: World) -> str:
        """The reason of the answer."""
        made = self.claims(scope=" ".join(sorted(self.scopes)))
        return made.request.ask(world, made.token.encode()).reason


def _mapping(part: Mapping[str, Any] | bytes) -> Mapping[str, Any]:
    assert isinstance(part, Mapping)
    return part


class Defect(NamedTuple):
    """One thing wrong, which alone has this reason. ``stage`` is its check's place in the contract's order."""

    stage: int
    name: str
    reason: R
    add: Callable[[Asked], Asked]


ORDINARY = Asked(Token(), Request(path="/verify/narrow"))
STAGES: list[list[tuple[str, R, Callable[[Asked], Asked]]]] = [
    [
        ("unknown policy", R.UNKNOWN_POLICY, lambda it: it.asking(path="/verify/nope")),
        ("unknown parameter", R.BAD_AUTH_REQUEST, lambda it: it.asking(query=b"colour=red")),
        ("URL twice", R.BAD_AUTH_REQUEST, lambda it: it.asking(headers=((b"x-original-url", b"https://h/"),))),
    ],
    [
        ("no token", R.MISSING_TOKEN, lambda it: it.asking(authorization=())),
        ("two tokens", R.MALFORMED_TOKEN, lambda it: it.asking(authorization=(b"Bearer %s", b"Bearer %s"))),
        ("padding", R.MALFORMED_TOKEN, lambda it: replace(it, token=replace(it.token, edit=lambda made: made + b"=="))),
        ("crit", R.MALFORMED_TOKEN, lambda it: it.header(crit=["x"], x=1)),
    ],
    [("algorithm", R.UNSUPPORTED_ALGORITHM, lambda it: it.header(alg="HS512"))],
    [("issuer", R.UNKNOWN_ISSUER, lambda it: it.claims(iss="https://evil.example"))],
    [
        ("kid", R.UNKNOWN_KEY, lambda it: it.header(kid="nobody")),
        (
            "keys unavailable",
            R.KEYS_UNAVAILABLE,
            lambda it: replace(it, token=replace(it.token, issuer="dark")).claims(iss=CLAIMS["dark"]["iss"]),
        ),
    ],
    [("signature", R.BAD_SIGNATURE, lambda it: replace(it, token=replace(it.token, signature=lambda _: bytes(256))))],
    [
        ("expired", R.EXPIRED, lambda it: it.claims(exp=1)),
        ("not yet valid", R.NOT_YET_VALID, lambda it: it.claims(nbf=2**40)),
        ("exp a string", R.INVALID_CLAIMS, lambda it: it.claims(exp="soon")),
    ],
    [("person", R.NOT_M2M, lambda it: it.claims(sub="alice"))],
    [("audience", R.WRONG_AUDIENCE, lambda it: it.claims(aud="api://other"))],
    [
        ("mapped claim", R.INVALID_CLAIMS, lambda it: it.claims(**{"custom:tenant": "a\r\nb"})),
        ("scope with a tab", R.INVALID_CLAIMS, lambda it: replace(it, scopes=it.scopes | {"a\tb"})),
    ],
    [("bound to its sender", R.BAD_PROOF, lambda it: it.claims(cnf={"jkt": "0ZcO"}))],
    [("revoked", R.REVOKED, lambda it: it.claims(jti="jti-revoked"))],
    [("client", R.CLIENT_NOT_ALLOWED, lambda it: it.asking(query=b"client=twin/agent-1"))],
    [
        (
            "issuer not allowed",
            R.ISSUER_NOT_ALLOWED,
            lambda it: it.asking(query=b"&".join(filter(None, (it.request.query, b"issuer=twin")))),
        )
    ],
    [
        ("no rule", R.NO_MATCHING_RULE, lambda it: it.asking(url=b"https://h/nowhere")),
        ("ambiguous path", R.AMBIGUOUS_PATH, lambda it: it.asking(url=b"https://h/db/%2f")),
    ],
    [("scope", R.INSUFFICIENT_SCOPE, lambda it: replace(it, scopes=it.scopes - {"read"}))],
    [("role", R.NO_ROLE, lambda it: replace(it, scopes=it.scopes - {"query"}))],
]
DEFECTS = [Defect(stage, *defect) for stage, defects in enumerate(STAGES) for defect in defects]
PAIRS = [(one, other) for one, other in combinations(DEFECTS, 2) if one.stage < other.stage]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(CONFIGURATION, tmp_path_factory.mktemp("order")) as made:
        yield made


def test_without_a_defect_the_request_is_allowed(world: World) -> None:
    assert ORDINARY.send(world) == R.OK


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_alone_each_defect_gives_its_own_reason(world: World, defect: Defect) -> None:
    assert defect.add(ORDINARY).send(world) == defect.reason


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda defect: defect.name)
def test_of_two_defects_the_earlier_check_gives_the_reason(world: World, first: Defect, second: Defect) -> None:
    assert first.add(second.add(ORDINARY)).send(world) == first.reason


def test_of_all_defects_at_once_the_earliest_check_gives_the_reason(world: World) -> None:
    asked = ORDINARY
    for defects in reversed(STAGES):
        name, reason, add = defects[0]
        asked = add(asked)
        assert asked.send(world) == reason, name
