"""What each kind of issuer writes into access tokens, and how a machine's differs from a person's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

from verifier.reasons import Reason, Rejected
from verifier.tokens.claims import ClaimName, Claims, show_claim, text

Check = Callable[[Claims, str], str | None]
"""Given the claims and the client id: why the token fails, or None."""

ACCESS_TOKEN = frozenset({None, "jwt", "jose", "at+jwt"})
"""Values of the header's ``typ``, as ``jws`` gives them, that a token may have: none says that it is another kind."""


def _no_check(_: Claims, __: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one kind of issuer. ``client_id`` names the claims that may hold the id, the first present wins."""

    name: str
    client_id: tuple[ClaimName, ...]
    scope: ClaimName
    machine: Check
    """Why it is not a machine's token."""
    access: Check = _no_check
    """Why it is no access token at all; people's tokens must pass it too."""
    typ: frozenset[str | None] = ACCESS_TOKEN
    audience_optional: bool = False
    """These issuers leave ``aud`` out."""
    product: str = ""
    """The name of the product, for ``suggest``; empty: this profile is not suggested."""
    signs: tuple[str, ...] = ()
    """Claims that all machines' tokens of this product have, and hardly any other product's."""

    def with_claims(self, client_id: ClaimName | None, scope: ClaimName | None) -> Profile:
        """The same rules, reading other claims."""
        return replace(self, client_id=(client_id,) if client_id else self.client_id, scope=scope or self.scope)

    def client_of(self, claims: Claims) -> str | None:
        """The client id, None where no claim holds one. Raises Rejected where it is not a string."""
        for name in self.client_id:
            client_id = text(claims, name)
            if client_id is not None:
                return client_id
        return None

    def machine_of(
        self, claims: Claims, typ: str | None, further_types: Container[str | None] = (), allow_users: bool = False
    ) -> str:
        """The client id of a machine's access token. Raises Rejected.

        ``further_types`` are accepted like ``self.typ``; ``allow_users``: a person's access token will do as well.
        """
        client_id = self.client_of(claims)
        if client_id is None:
            problem: str | None = f"it has no {' or '.join(map(show_claim, self.client_id))}"
        elif typ not in self.typ and typ not in further_types:  # RFC 8725 section 3.11: a logout token, an ID token
            problem = "typ is not that of an access token"
        else:
            problem = self.access(claims, client_id) or (None if allow_users else self.machine(claims, client_id))
            if problem is None:
                return client_id
        raise Rejected(Reason.NOT_M2M, f"not a machine's access token: {problem}")


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


def _okta(claims: Claims, client_id: str) -> str | None:
    """``uid`` is there where a user is bound to the token, whatever the user's login, which ``sub`` holds."""
    return "it carries uid, so it was issued for a person" if "uid" in claims else _subject_is_client(claims, client_id)


def _auth0(claims: Claims, client_id: str) -> str | None:
    """Auth0's own profile has ``azp`` and ``gty``, its RFC 9068 profile ``client_id`` and neither of them."""
    if "gty" in claims or "azp" in claims:
        return None if claims.get("gty") == "client-credentials" else "gty is not client-credentials"
    return None if text(claims, "sub") == f"{client_id}@clients" else "sub is not the client"


def _entra(claims: Claims, _: str) -> str | None:
    if "scp" in claims:
        return "it carries scp, so it was issued for a person"
    return None if "roles" in claims else "it carries no roles"


def _keycloak_access(claims: Claims, _: str) -> str | None:
    return None if claims.get("typ", "Bearer") == "Bearer" else "the claim typ is not Bearer"


# Session, token and grant in two letters each; `cc` is the client credentials grant.
_KEYCLOAK_GRANT = re.compile(r"[a-z]{4}([a-z]{2}):")
_SESSION = ("sid", "session_state", "auth_time")
_OF_PERSONS = (*_SESSION, "name", "email", "act", "may_act")


def _keycloak(claims: Claims, client_id: str) -> str | None:
    """The service account's user name, and the grant where ``jti`` names it: Keycloak 26.2 and later.

    A person may have registered the user name of a service account that does not exist; so the grant must be client
    credentials. After another one (refresh, token exchange) or in older versions, the claim ``client_id`` decides: the
    scope ``service_account`` copies it from a session note that only client credentials sets. Without the user name
    (no scope ``profile``, lightweight tokens) a token exchange leaves nothing else to tell a person by.
    """
    name, grant = text(claims, "preferred_username"), _KEYCLOAK_GRANT.match(text(claims, "jti") or "")
    has_note = claims.get("client_id") == client_id
    # Keycloak writes user names in lower case.
    if name is not None and name != f"service-account-{client_id}".lower():
        return "preferred_username is not the client's service account"
    if grant is not None:
        is_machine = grant[1] == "cc" or (name is not None and has_note)
        return None if is_machine else "jti names another grant than client credentials"
    if name is not None:
        in_session = any(claim in claims for claim in _SESSION)
        return "it belongs to a session, and client_id is not the client" if in_session and not has_note else None
    if has_note and not any(claim in claims for claim in _OF_PERSONS):
        return None
    return "neither preferred_username nor jti nor client_id says that it was issued for the client itself"


def _kubernetes(claims: Claims, _: str) -> str | None:
    is_account = (text(claims, "sub") or "").startswith("system:serviceaccount:")
    return None if is_account else "sub is not a service account"


_ALL = (
    Profile("generic", ("client_id", "azp"), "scope", _generic),
    Profile(
        "cognito", ("client_id",), "scope", _cognito, _cognito_access, audience_optional=True,
        product="Cognito", signs=("token_use",),
    ),
    Profile("okta", ("cid",), "scp", _okta, product="Okta", signs=("cid",)),
    Profile("auth0", ("azp", "client_id"), "scope", _auth0, product="Auth0"),
    Profile("entra", ("azp", "appid"), "roles", _entra, product="Entra", signs=("tid", "oid")),
    Profile("keycloak", ("azp",), "scope", _keycloak, _keycloak_access, product="Keycloak", signs=("typ",)),
    # A service account's token names no client: its subject is the account (Kubernetes: ServiceAccount token).
    Profile("kubernetes", ("sub",), "scope", _kubernetes, product="Kubernetes", signs=("kubernetes.io",)),
    # GitHub Actions: the subject names repository and ref or environment; every repository there is may ask for one.
    # It serves for GitLab CI and AWS IAM too: their tokens name no client either, so an allow-list decides.
    Profile("github", ("sub",), "scope", _no_check, product="GitHub Actions", signs=("repository", "workflow")),
    Profile("rfc9068", ("client_id",), "scope", _subject_is_client, typ=frozenset({"at+jwt"})),
)  # fmt: skip

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in _ALL}

SHARED_ISSUERS = frozenset({"github"})
"""Profiles of issuers that unrelated parties share: they need an allow-list of clients."""


def suggest(claims: Claims, typ: str | None, configured: Profile) -> str:
    """What to set where a token is a machine's by another profile than the configured one; else empty."""
    for profile in PROFILES.values():
        if profile.product not in ("", configured.product) and claims.keys() >= {*profile.signs}:
            with contextlib.suppress(Rejected):
                profile.machine_of(claims, typ)
                return f"this looks like {profile.product}: set profile: {profile.name}"
    return ""
