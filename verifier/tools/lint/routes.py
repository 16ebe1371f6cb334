"""Rules about all Ingresses together: routes around a guard, and the documents that must be reachable without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verifier.policy.resources import WELL_KNOWN
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import PREFIX, UNGUARDED, Finding, Ingress, Route, covers

ACME_PATH = "/.well-known/acme-challenge"  # ingress-nginx never guards it (no-auth-locations); cert-manager serves it


def findings(ingresses: Sequence[Ingress], known: Known) -> Iterator[Finding]:
    """Every trap that lies between Ingresses."""
    guards = [ingress for ingress in ingresses if ingress.guarded]
    unguarded = [ingress for ingress in ingresses if not ingress.annotation("auth-url")]
    for ingress in unguarded:
        yield from _unprotected(ingress, guards)
    public = {route.host for ingress in unguarded for route in ingress.routes if route.path.startswith(WELL_KNOWN)}
    for ingress in guards:
        yield from _metadata(ingress, known, public)


def _unprotected(ingress: Ingress, guards: Sequence[Ingress]) -> Iterator[Finding]:
    """Routes to a guarded host, or to the API behind it, that need no token."""
    seen: set[str] = set()
    for route in ingress.routes:
        guard, target = _guard_of(route, guards)
        if guard is None or target in seen or route.path.startswith((WELL_KNOWN, ACME_PATH)):
            continue
        seen.add(target)
        why = f"{route.host or '*'}{route.path} reaches {target}, which {guard.name} guards: {UNGUARDED}"
        yield ingress.trap("unprotected", "auth-url", why, guard.annotation("auth-url"))
        if ingress.annotation("enable-global-auth") == "false":
            why = f"switches the controller-wide guard off as well, on {target}, which {guard.name} guards"
            yield ingress.trap("global-auth-off", "enable-global-auth", why)


def _guard_of(route: Route, guards: Sequence[Ingress]) -> tuple[Ingress | None, str]:
    for guard in guards:
        for guarded in guard.routes:
            if guarded.host == route.host or (guarded.host and covers(guarded.host, route.host)):
                return guard, f"the host {guarded.host or '*'}"
            if guarded.backend and guarded.backend == route.backend:
                return guard, f"the backend {guarded.backend}"
    return None, ""


def _metadata(ingress: Ingress, known: Known, public: set[str]) -> Iterator[Finding]:
    """Protected-resource documents (RFC 9728) that ask for a token."""
    for host in ingress.hosts:
        paths = [route.path for route in ingress.routes if route.host == host]
        behind = any(path.startswith(WELL_KNOWN) for path in paths)
        # Without a path of its own, the document is below the guarded path /.
        if behind or ("/" in paths and ingress.policy in known.resources and host not in public):
            why = "an agent reads the protected-resource document before it has a token (RFC 9728); here it needs one"
            write = f"a separate Ingress for {host or 'the host'} with path {WELL_KNOWN} and no auth-url"
            yield ingress.finding("metadata-behind-auth", PREFIX + "auth-url", why, write)
