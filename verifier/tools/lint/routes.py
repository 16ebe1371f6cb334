"""Rules about all routes together: those around a guard, and the documents that must be reachable without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verifier.policy.resources import WELL_KNOWN
from verifier.tools.lint.guards import UNGUARDED, Route
from verifier.tools.lint.ingress_nginx import covers, place
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding

ACME_PATH = "/.well-known/acme-challenge"  # ingress-nginx never guards it (no-auth-locations); cert-manager serves it


def findings(routes: Sequence[Route], known: Known) -> Iterator[Finding]:
    """Every trap that lies between routes, whichever controllers they are for."""
    guarded = [route for route in routes if route.guard is not None]
    unguarded = [route for route in routes if route.guard is None and not route.is_checked]
    yield from _unprotected(unguarded, guarded)
    public = {route.host for route in unguarded if route.path.startswith(WELL_KNOWN)}
    yield from _metadata(guarded, known, public)


def _unprotected(unguarded: Sequence[Route], guarded: Sequence[Route]) -> Iterator[Finding]:
    """Routes to a guarded host, or to the API behind it, that need no token."""
    seen = set()
    for route in unguarded:
        other, target = _guarded_beside(route, guarded)
        key = (route.object.file, route.object.kind, route.object.label, target)
        if other is None or other.guard is None or key in seen or route.path.startswith((WELL_KNOWN, ACME_PATH)):
            continue
        seen.add(key)
        name = f"{other.object.kind} {other.object.label}"
        why = f"{route.host or '*'}{route.path} reaches {target}, which {name} guards: {UNGUARDED}"
        is_same = other.object.kind == route.object.kind
        write = other.guard.use if is_same else "what `m2m-verifier guard --proxy NAME` prints for this controller"
        yield route.object.finding("unprotected", route.place, why, write)
        if route.object.text(*place("enable-global-auth")) == "false":
            why = f"switches the controller-wide guard off as well, on {target}, which {name} guards"
            yield route.object.trap("global-auth-off", place("enable-global-auth"), why)


def _guarded_beside(route: Route, guarded: Sequence[Route]) -> tuple[Route | None, str]:
    for other in guarded:
        if other.host == route.host or (other.host and covers(other.host, route.host)):
            return other, f"the host {other.host or '*'}"
        if other.backend and other.backend == route.backend:
            return other, f"the backend {other.backend}"
    return None, ""


def _metadata(guarded: Sequence[Route], known: Known, public: set[str]) -> Iterator[Finding]:
    """Protected-resource documents (RFC 9728) that ask for a token."""
    seen = set()
    for route in guarded:
        key = (route.object.file, route.object.kind, route.object.label, route.host)
        is_below = route.path == "/" and route.host not in public  # without a path of its own
        needs_document = route.guard is not None and route.guard.policy in known.resources
        if key not in seen and (route.path.startswith(WELL_KNOWN) or (is_below and needs_document)):
            seen.add(key)
            why = "an agent reads the protected-resource document before it has a token (RFC 9728); here it needs one"
            write = f"a separate {route.object.kind} for {route.host or 'the host'} with path {WELL_KNOWN} and no guard"
            yield route.object.finding("metadata-behind-auth", route.place, why, write)
