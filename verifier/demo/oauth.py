"""Parses a client-credentials request (RFC 6749)."""

import base64
import urllib.parse
from collections.abc import Mapping


class OAuthError(Exception):
    """An error of the token endpoint; its text is the error code (RFC 6749 section 5.2)."""


def parse_form(body: bytes) -> dict[str, str]:
    """The parameters of a client-credentials request; empty ones count as left out (RFC 6749 section 3.2).

    Raises:
        OAuthError: `invalid_request` or `unsupported_grant_type`.
    """
    pairs = urllib.parse.parse_qsl(body.decode("utf-8", "replace"))
    form = dict(pairs)
    if len(form) < len(pairs) or "grant_type" not in form:  # no parameter twice
        raise OAuthError("invalid_request")
    if form["grant_type"] != "client_credentials":
        raise OAuthError("unsupported_grant_type")
    return form


def credentials(authorization: str | None, form: Mapping[str, str]) -> tuple[str, str]:
    """Client id and secret, from HTTP Basic or from the form, never from both (RFC 6749 section 2.3).

    Raises:
        OAuthError: `invalid_request` or `invalid_client`.
    """
    if authorization is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    if "client_secret" in form:
        raise OAuthError("invalid_request")
    scheme, _, encoded = authorization.partition(" ")
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise OAuthError("invalid_client") from None
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client")
    return urllib.parse.unquote_plus(client_id), urllib.parse.unquote_plus(secret)
