"""What every controller's guard must have: the right path, a known policy, each header of the verifier's answer."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from verifier.identity import IDENTITY_HEADERS
from verifier.policy.policies import PARAMETERS
from verifier.proxies import ext_authz, forward_auth, gateway_fabric, nginx
from verifier.proxies.fields import METHOD_OVERRIDES, policy_below
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Object, Place

UNGUARDED = "no token is needed, and X-M2M headers reach the API as the client sent them"
EXT_AUTHZ = ext_authz.PREFIX.decode().rstrip("/")

_BY_HEADERS = nginx.PREFIX, forward_auth.PREFIX, gateway_fabric.PREFIX
_IDENTITY = {name.lower() for name in IDENTITY_HEADERS}
_OVERRIDES = [name.decode() for name in METHOD_OVERRIDES]


@dataclass(frozen=True, slots=True)
class Guard:
    """How one object asks the verifier."""

    object: Object
    place: Place
    """Of the auth URL, or of its path alone."""
    prefixes: tuple[str, ...]
    """The dialects that this controller can use."""
    use: str
    """What makes another route of the same controller ask too."""
    services: Sequence[Place] = ()
    """Where it names the verifier's Service, if not in the auth URL."""
    passed: Place = ()
    """Where the headers are listed that the controller takes from the verifier's answer; empty: in each route."""
    asked: Place = ()
    """Where the client's headers are listed that the verifier sees; empty: it sees all."""
    has_wildcards: bool = False
    """Whether a list may hold ``X-M2M-*``, for each header that begins so."""
    drops_challenge: bool = False
    """Whether a 403 loses its headers on its way to the client."""
    certified: Sequence[str] = ()
    """The headers of the auth request that the controller sets itself, in lower case."""
    fail_open: Place = ()
    """Of the switch that lets requests pass while the verifier is down."""

    @property
    def written(self) -> str:
        """The auth URL, or its path alone."""
        return self.object.text(*self.place)

    @property
    def asks(self) -> bool:
        """Whether it is meant to ask the verifier: by path, by Service, or, without a URL, by the headers."""
        services = "".join(f" {self.object.text(*place)}" for place in self.services)
        headers = map(str.lower, self.headers(IDENTITY_HEADERS))
        return (
            bool(_policies(self.url.path))
            or "m2m-verifier" in self.url.netloc + services
            or (not self.written and not _IDENTITY.isdisjoint(headers))
        )

    def headers(self, names: Iterable[str]) -> list[str]:
        """The headers that the controller takes from the answer. ``names`` are those that a wildcard may stand for."""
        return self._listed(self.passed, names)

    @property
    def sent(self) -> list[str]:
        """The client's headers that the verifier sees."""
        return self._listed(self.asked, _OVERRIDES)

    def _listed(self, place: Place, names: Iterable[str]) -> list[str]:
        listed = self.object.texts(*place)
        patterns = [pattern.lower() for pattern in listed if self.has_wildcards and "*" in pattern]
        return [*listed, *(name for name in names if any(fnmatchcase(name.lower(), pattern) for pattern in patterns))]

    @property
    def url(self) -> SplitResult:
        """The auth URL in parts, without white space around it; empty parts where it is none."""
        return split(self.written)

    @property
    def policy(self) -> str | None:
        """The policy that the auth URL names, None where its path is in none of the dialects."""
        found = _policies(self.written.strip() if EXT_AUTHZ in self.prefixes else self.url.path)
        return next((found[prefix] for prefix in self.prefixes if prefix in found), None)


@dataclass(frozen=True, slots=True)
class Route:
    """One way to an API."""

    object: Object
    place: Place
    """Where it would name its guard."""
    host: str
    """Empty: every host that no other route names."""
    path: str
    backend: str
    """namespace/service:port; empty where the backend is no Service."""
    guard: Guard | None = None
    is_checked: bool = False
    """Whether the guard, or something else, decides about each request."""


Found = Guard | Route | Finding
"""What the rules of one controller read from the objects."""


def split(url: str) -> SplitResult:
    """A URL in parts; empty parts where it is none."""
    try:
        return urlsplit(url.strip())
    except ValueError:  # an unbalanced [ in the host
        return urlsplit("")


def findings(guard: Guard, known: Known) -> Iterator[Finding]:
    """Every trap that a guard has by itself."""
    yield from _auth_url(guard, known)
    headers = guard.headers(missing_headers((), known))
    missing = missing_headers(headers, known)
    if guard.passed and missing:
        why = f"{', '.join(missing)} not listed: the API receives what the client sent, not what the verifier answered"
        yield guard.object.trap("forgeable-header", guard.passed, why, [*headers, *missing])
    lower = set(map(str.lower, guard.sent))
    hidden = [name for name in _OVERRIDES if name not in lower]
    if guard.asked and hidden:
        why = f"the verifier does not see {', '.join(hidden)}: a rule with token: none may let another method pass"
        yield guard.object.trap("hidden-header", guard.asked, why, [*guard.sent, *hidden])
    if guard.fail_open and guard.object.text(*guard.fail_open) == "true":
        why = "while the verifier is down, requests pass: no token is needed then"
        yield guard.object.trap("fail-open", guard.fail_open, why, "false")
    for name in known.certificates:
        if name not in guard.certified and (name in lower or not guard.asked):
            why = f"this controller does not set {name}: whoever has a client's certificate can send it, and no key"
            write = f"a configuration without client_certificate_header: {name}, or a controller that sets it"
            yield guard.object.finding("forgeable-certificate", guard.asked or guard.place, why, write)
    if guard.drops_challenge and guard.policy in known.challenges:
        why = "nginx drops the headers of a 403: an agent does not learn which scopes it has to ask for"
        write = f"in the configuration, policies.{guard.policy}: scope_challenge: 401"
        yield guard.object.finding("lost-challenge", guard.place, why, write)


def missing_headers(listed: Sequence[str], known: Known) -> list[str]:
    """The headers of the verifier's answer that a list lacks."""
    lower = set(map(str.lower, listed))
    return [name for name in (*IDENTITY_HEADERS, *known.headers) if name.lower() not in lower]


def _policies(path: str) -> dict[str, str]:
    """The policy that an auth path names, by its dialect."""
    found = {prefix: policy_below(prefix, path) for prefix in _BY_HEADERS}
    # A slash or a query behind the policy would become a part of every path.
    named = re.fullmatch(rf"{EXT_AUTHZ}/([^/?].*)", path)
    found[EXT_AUTHZ] = named[1].replace("?", "/") if named else None
    return {prefix: policy for prefix, policy in found.items() if policy is not None}


def _auth_url(guard: Guard, known: Known) -> Iterator[Finding]:
    url, policy = guard.url, guard.policy
    base = f"{url.scheme}://{url.netloc}" if url.netloc else ""
    base += next((prefix for prefix in guard.prefixes if url.path.startswith(prefix)), guard.prefixes[0])
    if policy is None or "/" in policy:
        fits = " or ".join(f"{prefix}/POLICY" for prefix in guard.prefixes)
        why = f"the path {url.path or '(none)'} is not what this controller asks, {fits}: another one may answer 200"
        why += " to every request, or trust headers that the client sends"
        near = next(iter(_policies(url.path).values()), "").strip("/").partition("/")[0]
        yield guard.object.trap("auth-url-path", guard.place, why, f"{base}/{near or 'default'}")
        return
    if "$" in guard.written:  # its value is not known here
        return
    if known.policies is not None and policy not in known.policies:
        # Only a similar name is proposed: any other policy may allow whom this one would refuse.
        close = difflib.get_close_matches(policy, known.policies, n=1) or ["POLICY"]
        names = ", ".join(sorted(known.policies)) or "none"
        why = f"every request is answered 403 unknown_policy: there is no policy {policy!r} among {names}"
        yield guard.object.trap("unknown-policy", guard.place, why, f"{base}/{close[0]}")
    pairs = [pair for pair in url.query.split("&") if pair]
    unknown = [pair for pair in pairs if pair.partition("=")[0] not in PARAMETERS]
    if unknown:
        why = f"every request is answered 403 bad_auth_request: {unknown[0]!r} is none of {', '.join(PARAMETERS)}"
        valid = "&".join(pair for pair in pairs if pair not in unknown)
        write = f"{guard.written.partition('?')[0]}?{valid}".removesuffix("?")
        yield guard.object.trap("auth-url-query", guard.place, why, write)
