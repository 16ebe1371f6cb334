"""What each kind of issuer writes into access tokens, and how a machine's differs from a person's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from verifier.reasons import Reason, Rejected
from verifier.tokens.jws import Claims

Check = Callable[[Claims, str], str | None]
"""Given the claims and the client id: why the token fails, or None."""


def text(claims: Claims, name: str) -> str | None:
    """The string claim ``name``, None where absent. Raises Rejected where it is anything but a string."""
    value = claims.get(name)
    if (value is None and name not in claims) or isinstance(value, str):
        return value
    raise Rejected(Reason.INVALID_CLAIMS, f"the claim {name} is not a string")


def scope_values(claims: Claims, name: str) -> list[str]:
    """The scopes of ``name``, which is one string (RFC 8693 section 4.2) or a list of strings. Raises Rejected."""
    value = claims.get(name, "")
    if isinstance(value, str):
        return value.split(" ") if value else []
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise Rejected(Reason.INVALID_CLAIMS, f"the claim {name} is neither a string nor a list of strings")


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one kind of issuer. ``client_id`` names the claims that may hold the id, the first present wins."""

    client_id: tuple[str, ...]
    scope: str
    access: Check
    """Why it is no access token at all; people's tokens must pass it too."""
    machine: Check
    """Why it is not a machine's token."""
    typ: tuple[str, ...] = ()
    """The header's ``typ`` has to be one of these; empty: see ``verify.check_typ``."""
    audience_optional: bool = False
    """These issuers leave ``aud`` out."""

    def with_claims(self, client_id: str | None, scope: str | None) -> Profile:
        """The same rules, reading other claims."""
        return replace(self, client_id=(client_id,) if client_id else self.client_id, scope=scope or self.scope)

    def client_of(self, claims: Claims) -> str | None:
        """The client id, None where no claim holds one. Raises Rejected where it is not a string."""
        for name in self.client_id:
            if name in claims:
                return text(claims, name)
        return None


def _no_check(_: Claims, __: str) -> None:
    return None


def _subject_is_client(claims: Claims, client_id: str) -> str | None:
    return None if text(claims, "sub") == client_id else "sub is not the client"


def _generic(claims: Claims, client_id: str) -> str | None:
    if text(claims, "sub") in (None, client_id) or claims.get("gty") == "client-credentials":
        return None
    return "sub is not the client, so it was issued for a person"


def _cognito_access(claims: Claims, _: str) -> str | None:
    return None if claims.get("token_use") == "access" else "token_use is not access"


def _cognito(claims: Claims, _: str) -> str | None:
    found = [name for name in ("username", "cognito:groups", "device_key") if name in claims]
    return f"it carries {found[0]}, so it was issued for a person" if found else None


def _auth0(claims: Claims, _: str) -> str | None:
    return None if claims.get("gty") == "client-credentials" else "gty is not client-credentials"


def _entra(claims: Claims, _: str) -> str | None:
    if "scp" in claims:
        return "it carries scp, so it was issued for a person"
    return None if "roles" in claims else "it carries no roles"


def _keycloak_access(claims: Claims, _: str) -> str | None:
    return None if claims.get("typ", "Bearer") == "Bearer" else "the claim typ is not Bearer"


def _keycloak(claims: Claims, client_id: str) -> str | None:
    # Keycloak writes user names in lower case.
    if text(claims, "preferred_username") == f"service-account-{client_id}".lower():
        return None
    return "preferred_username is not the client's service account"


def _kubernetes(claims: Claims, client_id: str) -> str | None:
    return None if client_id.startswith("system:serviceaccount:") else "sub is not a service account"


PROFILES: Mapping[str, Profile] = {
    "generic": Profile(("client_id", "azp"), "scope", _no_check, _generic),
    "cognito": Profile(("client_id",), "scope", _cognito_access, _cognito, audience_optional=True),
    "okta": Profile(("cid",), "scp", _no_check, _subject_is_client),
    "auth0": Profile(("azp",), "scope", _no_check, _auth0),
    "entra": Profile(("azp", "appid"), "roles", _no_check, _entra),
    "keycloak": Profile(("azp",), "scope", _keycloak_access, _keycloak),
    # A service account's token names no client: its subject is the account (Kubernetes: ServiceAccount token).
    "kubernetes": Profile(("sub",), "scope", _no_check, _kubernetes),
    # GitHub Actions: the subject names repository and ref or environment; every repository there is may ask for one.
    "github": Profile(("sub",), "scope", _no_check, _no_check),
    "rfc9068": Profile(("client_id",), "scope", _no_check, _subject_is_client, typ=("at+jwt", "application/at+jwt")),
}

SHARED_ISSUERS = frozenset({"github"})
"""Profiles of issuers that unrelated parties share: they need an allow-list of clients."""
