"""Policies: which principal may send which request."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import unquote_to_bytes

from cachetools import LRUCache

from verifier.identity import Principal, VerifiedToken
from verifier.policy.clients import Client, ClientIds
from verifier.policy.paths import AmbiguousPathError, PathPattern, parse_url
from verifier.policy.resources import Resource
from verifier.reasons import Reason, Rejected

# RFC 6749 section 3.3
SCOPE_TOKEN = re.compile(r"[!#-\[\]-~]+")

PARAMETERS = ("scope", "client", "issuer")
"""Of an auth URL."""

MAX_QUERY = 4096  # bytes of an auth URL's query
MAX_REMEMBERED, MAX_REMEMBERED_QUERY = 128, 512  # narrowed policies, and bytes of a query worth remembering: 4 MiB

MAX_CHALLENGE_SCOPE = 1024  # bytes up to which a challenge names scopes that are held already; it has to fit a header

AnyOf = tuple[str, ...]
"""Scopes of which one is enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One line of a policy's ``rules``. ``methods`` None: any."""

    path: PathPattern
    methods: frozenset[str] | None = None
    needs: tuple[AnyOf, ...] = ()
    needs_token: bool = True

    def needs_less_than(self, other: Rule) -> bool:
        """Whether a request may pass here and not there."""
        if other.needs_token and not self.needs_token:
            return True
        return not all(any(set(own) <= set(needed) for own in self.needs) for needed in other.needs)


@dataclass(frozen=True, eq=False)
class Policy:
    """What an auth URL requires of a request. ``clients`` and ``issuers`` None: all that are configured."""

    name: str
    needs: tuple[AnyOf, ...] = ()
    rules: tuple[Rule, ...] = ()
    clients: frozenset[Client] | None = None
    issuers: frozenset[str] | None = None
    report: bool = False
    role_required: bool = False
    resource: Resource | None = None
    challenge_prefix: str = ""
    """The scope prefix of a challenge where the token's issuer is not known."""
    scope_challenge: int = 403
    """The status of a refusal for insufficient scope: 403 or 401."""

    @cached_property
    def has_open_rules(self) -> bool:
        """Whether there is a rule that needs no token."""
        return not all(rule.needs_token for rule in self.rules)

    @property
    def origin(self) -> str:
        """Scheme and authority of the API as clients name it, empty where the policy has no resource."""
        return self.resource.origin if self.resource is not None else ""

    @property
    def resource_metadata(self) -> str:
        """The URL of the protected-resource document, empty where the policy has no resource."""
        return self.resource.metadata_url if self.resource is not None else ""

    def challenge_scope(self, method: str, url: bytes) -> str:
        """The scopes that the request needs, for agents that read the protected-resource document; else empty."""
        if self.resource is None:
            return ""
        rules: set[Rule | None] = set()
        if self.rules:
            with contextlib.suppress(AmbiguousPathError):
                rules, _ = self.rules_of_readings(method, url)
        needs = next((rule.needs for rule in rules if rule is not None), ()) if len(rules) == 1 else ()
        return scopes_to_request(self.needs + needs, self.challenge_prefix)

    @cached_property
    def named_scopes(self) -> tuple[str, ...]:
        """Every scope that the policy names."""
        needs = self.needs + tuple(alternatives for rule in self.rules for alternatives in rule.needs)
        return tuple(dict.fromkeys(scope for alternatives in needs for scope in alternatives))

    def check_audience(self, token: VerifiedToken) -> None:
        """A token for other resources is not accepted here (RFC 8707 section 2). Raises Rejected."""
        if self.resource is not None and token.resources and self.resource.url not in token.resources:
            raise Rejected(Reason.WRONG_AUDIENCE, "aud names another resource, and not this one")

    def rule_for(self, method: str, path: str) -> Rule | None:
        """The first rule that matches."""
        for rule in self.rules:
            if (rule.methods is None or method in rule.methods) and rule.path.matches(path):
                return rule
        return None

    def slash_gaps(self) -> Iterator[tuple[Rule, str, Rule]]:
        """Rules that a final slash, or its absence, evades: the rule, the other path, and the rule that needs less."""
        named = frozenset[str]().union({""}, *(rule.methods or () for rule in self.rules))  # "": any other method
        for rule in self.rules:
            path = rule.path.example
            if path == "/" or rule.path.text.endswith("/**"):
                continue
            for method in sorted(rule.methods or named):
                other = self.rule_for(method, path.removesuffix("/") if path.endswith("/") else path + "/")
                if other is not None and self.rule_for(method, path) is rule and other.needs_less_than(rule):
                    text = rule.path.text
                    yield rule, text.removesuffix("/") if text.endswith("/") else text + "/", other
                    break

    def needs_token(self, method: str, url: bytes) -> bool:
        """False where each reading of the path meets a rule that needs no token."""
        try:
            rules, rare = self.rules_of_readings(method, url)
        except AmbiguousPathError:
            return True
        return any(rule is None or rule.needs_token for rule in rules | rare)

    def authorize(self, principal: Principal, method: str, url: bytes) -> None:
        """Client, issuer, rule, scope, role: raise Rejected at the first that fails."""
        if not principal.listed or (
            self.clients is not None and (principal.issuer, principal.client_id) not in self.clients
        ):
            raise Rejected(Reason.CLIENT_NOT_ALLOWED, "this client is not on the list")
        if self.issuers is not None and principal.issuer not in self.issuers:
            raise Rejected(Reason.ISSUER_NOT_ALLOWED, "tokens of this issuer are not accepted here")
        needs, rare_needs = self.needs_of(method, url)
        for alternatives in needs:
            if principal.scopes.isdisjoint(alternatives):
                raise Rejected(
                    Reason.INSUFFICIENT_SCOPE,
                    f"needs the scope {' or '.join(alternatives)}",
                    scope=self._scopes_to_request(needs, principal),
                )
        if rare_needs and any(map(principal.scopes.isdisjoint, rare_needs)):
            raise Rejected(Reason.AMBIGUOUS_PATH, "the path meets a stricter rule where it is decoded in another way")
        if self.role_required and not principal.role:
            raise Rejected(Reason.NO_ROLE, "no role is mapped to this client or its scopes")

    def needs_of(self, method: str, url: bytes) -> tuple[tuple[AnyOf, ...], frozenset[AnyOf]]:
        """The scopes that a request needs, and those that rare readings of its path need. Raises Rejected."""
        if not self.rules:
            return self.needs, frozenset()
        try:
            (rule, *others), rare = self.rules_of_readings(method, url)
        except AmbiguousPathError as error:
            raise Rejected(Reason.AMBIGUOUS_PATH, f"the path is ambiguous: {error}") from error
        if others:  # nginx routes by one reading and hands the API the raw path: both must mean the same
            raise Rejected(
                Reason.AMBIGUOUS_PATH, "the path meets another rule with its dots, slashes or parameters as sent"
            )
        if rule is None:
            raise Rejected(Reason.NO_MATCHING_RULE, "no rule allows this method on this path")
        return self.needs + rule.needs, frozenset(needs for other in rare for needs in other.needs)

    def _scopes_to_request(self, needs: tuple[AnyOf, ...], principal: Principal) -> str:
        """What a token for this request has to hold; where there is a resource, also what the client would else lose.

        An MCP client may ask for nothing but the scopes of the challenge.
        """
        needed = scopes_to_request(needs, principal.scope_prefix, principal.scopes)
        if self.resource is None:
            return needed
        held = tuple((scope,) for scope in self.named_scopes if scope in principal.scopes)
        more = scopes_to_request(needs + held, principal.scope_prefix, principal.scopes)
        return more if len(more) <= MAX_CHALLENGE_SCOPE else needed

    def rules_of_readings(self, method: str, url: bytes) -> tuple[set[Rule | None], set[Rule]]:
        """What the readings of a path meet, and the rules that rare ones meet. Raises AmbiguousPathError."""
        target = parse_url(url)
        rules = {self.rule_for(method, reading) for reading in (target.path, *target.other_readings)}
        rare = (self.rule_for(method, reading) for reading in target.rare_readings)
        return rules, {rule for rule in rare if rule is not None}


def scopes_to_request(needs: Iterable[AnyOf], prefix: str, held: frozenset[str] = frozenset()) -> str:
    """The smallest sufficient set of scopes, space-separated, as a token would have to hold them."""
    chosen = (next((scope for scope in alternatives if scope in held), alternatives[0]) for alternatives in needs)
    return " ".join(dict.fromkeys(with_prefix(scope, prefix) for scope in chosen))


def with_prefix(scope: str, prefix: str) -> str:
    """A scope as a token holds it."""
    return scope if scope.startswith(prefix) else prefix + scope


@dataclass(slots=True, eq=False)
class Policies:
    """The policies by name, and as auth URLs narrow them."""

    by_name: Mapping[str, Policy]
    client_ids: ClientIds
    _narrowed: LRUCache[tuple[str, bytes], Policy] = field(default_factory=lambda: LRUCache(MAX_REMEMBERED))

    def find(self, name: str, query: bytes) -> Policy:
        """The policy of an auth URL, narrowed by its query. Raises Rejected, whose cause is the auth request itself.

        Narrowed policies are remembered: operators write few auth URLs. Memory stays bounded if a client varies them.
        """
        policy = self.by_name.get(name)
        if policy is None:
            raise Rejected(Reason.UNKNOWN_POLICY, "the auth URL names a policy that is not configured")
        if not query:
            return policy
        narrowed = self._narrowed.get((name, query))
        if narrowed is None:
            narrowed = self._narrow(policy, query)
            if len(query) <= MAX_REMEMBERED_QUERY:
                self._narrowed[name, query] = narrowed
        return narrowed

    def _narrow(self, policy: Policy, query: bytes) -> Policy:
        """``scope=A``, ``client=ID,ID``, ``issuer=NAME``: each can only take away, however often it comes."""
        if len(query) > MAX_QUERY:
            raise Rejected(Reason.BAD_AUTH_REQUEST, f"the auth URL's query is longer than {MAX_QUERY} bytes")
        for pair in filter(None, query.split(b"&")):
            name, _, value = pair.partition(b"=")
            try:
                values = _query_values(value)
                if name == b"scope":
                    policy = replace(policy, needs=(*policy.needs, values))
                elif name == b"client":
                    named = frozenset(map(self.client_ids.parse, values))
                    policy = replace(policy, clients=named if policy.clients is None else policy.clients & named)
                elif name == b"issuer":
                    only = frozenset(values)
                    policy = replace(policy, issuers=only if policy.issuers is None else policy.issuers & only)
                else:
                    raise ValueError(f"its parameters are {', '.join(PARAMETERS)}")
            except ValueError as error:
                description = f"the auth URL's query is not understood: {error}"
                raise Rejected(Reason.BAD_AUTH_REQUEST, description) from error
        return policy


def _query_values(value: bytes) -> tuple[str, ...]:
    """The alternatives of one query parameter. Raises ValueError."""
    values = tuple(unquote_to_bytes(value).decode("latin-1").split(","))
    if not all(map(SCOPE_TOKEN.fullmatch, values)):
        raise ValueError("a value is empty, or holds a character that no scope, client id or issuer may hold")
    return values
