"""Proofs that the sender owns what a token is bound to: DPoP (RFC 9449) and TLS client certificates (RFC 8705)."""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from verifier.clock import Clock
from verifier.identity import Binding, VerifiedToken
from verifier.keys.jwk import ASYMMETRIC_ALGORITHMS, parse_key, thumbprint_input
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest, Credentials
from verifier.strict_json import parse_object
from verifier.tokens.claims import LARGEST_TIME, Claims
from verifier.tokens.jws import decode_part

log = logging.getLogger(__name__)

MAX_PROOF_BYTES = 8 * 1024  # as nginx limits a header line
MAX_CERTIFICATE_BYTES = 32 * 1024  # of the header, percent-encoded
MAX_AGE = 60.0  # seconds since a proof was signed
MAX_SEEN = 65_536  # proofs that are remembered, of 128 bytes each: 8 MiB
BUCKET = 10.0  # seconds

_THUMBPRINT = re.compile("[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")  # SHA-256 in canonical base64url
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518 sections 6.2.2, 6.3.2, 6.4.1
_NOT_BOUND = "the token is not bound to a key (it has no cnf.jkt), so its scheme is Bearer and not DPoP"
_BOUND = "the token is bound to a key (cnf.jkt), so its scheme is DPoP and not Bearer"

_URI = re.compile(
    r"(https?)://([a-z0-9._~-]*|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?(/[!\"$->@-~]*)?(?:[?#].*)?",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile("[A-Za-z0-9._~-]")

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_BASE64 = re.compile(rb"(:?)([A-Za-z0-9+/]+={0,2})\1")


def _bad(description: str) -> Rejected:
    return Rejected(Reason.BAD_PROOF, description)


def binding_of(claims: Claims) -> Binding | None:
    """What a token is bound to, None without ``cnf``. Raises Rejected where that cannot be proved here."""
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if not isinstance(cnf, dict) or not cnf or not cnf.keys() <= {"jkt", "x5t#S256"}:
        raise _bad("cnf must hold jkt (DPoP), x5t#S256 (certificate) or both, and nothing else")
    if not all(isinstance(value, str) and _THUMBPRINT.fullmatch(value) for value in cnf.values()):
        raise _bad("a thumbprint in cnf is not the base64url of a SHA-256")
    return Binding(cnf.get("jkt"), cnf.get("x5t#S256"))


class SeenProofs:
    """The proofs that were used and are not too old yet: at most MAX_SEEN.

    They lie in buckets of BUCKET seconds by the time from which a proof is too old; a bucket is dropped as a whole.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, set[bytes]] = {}
        self._was_full = False

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, proof: bytes, expires: float, now: float) -> None:
        """Remember a proof until ``expires``, in seconds since the epoch. Raises Rejected for one that is known."""
        for end in [end for end in self._buckets if end * BUCKET < now]:
            del self._buckets[end]
        if any(proof in bucket for bucket in self._buckets.values()):
            raise _bad("the DPoP proof was used before: each request needs a new one")
        is_full = len(self) >= MAX_SEEN
        if is_full and not self._was_full:
            log.warning("%d DPoP proofs are remembered: further ones are refused until some are too old", MAX_SEEN)
        self._was_full = is_full
        if is_full:
            raise _bad("too many DPoP proofs are in use: try again later")
        self._buckets.setdefault(math.ceil(expires / BUCKET), set()).add(proof)


class Proof(NamedTuple):
    """A DPoP proof (RFC 9449 section 4.2). Only its form has been checked."""

    header: Claims
    claims: Claims
    signing_input: bytes
    signature: bytes


class Proofs:
    """Checks the proofs of each request with a token that is bound to its sender.

    ``certificate_headers`` has the header of the client's certificate by issuer; ``seen`` outlives a configuration;
    ``leeway`` is in seconds.
    """

    def __init__(
        self, certificate_headers: Mapping[str, str | None], seen: SeenProofs, *, clock: Clock, leeway: float
    ) -> None:
        self._certificate_headers = {
            issuer: name.lower().encode("ascii") for issuer, name in certificate_headers.items() if name is not None
        }
        self._seen = seen
        self._clock = clock
        self._leeway = leeway

    def check(self, request: AuthRequest, presented: Credentials, token: VerifiedToken, origin: str) -> None:
        """Check all that the token is bound to. Raises Rejected.

        ``origin`` is the scheme and authority of the API, empty: those of the request's URL. A DPoP proof that passes
        counts as used, whatever else is decided about the request.
        """
        issuer, binding = token.principal.issuer, token.binding or Binding(None, None)
        try:
            if binding.certificate is not None:
                self._check_certificate(binding.certificate, request, issuer)
            if presented.is_dpop != (binding.jkt is not None):
                raise _bad(_NOT_BOUND if presented.is_dpop else _BOUND)
            if binding.jkt is not None:
                self._check_dpop(binding.jkt, request, presented.token, origin)
        except Rejected as rejected:
            rejected.issuer = issuer
            rejected.is_dpop = presented.is_dpop or binding.jkt is not None
            raise

    def _check_certificate(self, expected: str, request: AuthRequest, issuer: str) -> None:
        """RFC 8705 section 3. The proxy has checked that the client has the certificate's private key."""
        name = self._certificate_headers.get(issuer)
        if name is None:
            raise _bad("the token is bound to a certificate, and its issuer has no client_certificate_header here")
        values = [value for header, value in request.headers if header == name]
        if not any(values):
            raise _bad("the token is bound to a certificate, and the proxy passed none of the client")
        if len(values) != 1:
            raise _bad("the header of the client's certificate came more than once")
        if _sha256(certificate_of(values[0])) != expected:
            raise _bad("the client's certificate is not the one that the token is bound to")

    def _check_dpop(self, jkt: str, request: AuthRequest, token: bytes, origin: str) -> None:
        """RFC 9449 section 4.3. The signature comes last but one: only the token's own key is worth its time."""
        if len(request.proofs) != 1:
            raise _bad("the request must have one DPoP header with a proof")
        proof = parse_proof(request.proofs[0])
        header, claims, now = proof.header, proof.claims, self._clock()
        algorithm, jwk = header.get("alg"), header.get("jwk")
        if header.get("typ") != "dpop+jwt":
            raise _bad("the DPoP proof's typ is not dpop+jwt")
        if "crit" in header or "b64" in header:  # RFC 7515 section 4.1.11
            raise _bad("the DPoP proof asks for an extension")
        if algorithm not in ASYMMETRIC_ALGORITHMS:
            raise _bad("the DPoP proof's alg is not one of " + " ".join(ASYMMETRIC_ALGORITHMS))
        if not isinstance(jwk, dict) or not _PRIVATE_MEMBERS.isdisjoint(jwk):
            raise _bad("the DPoP proof's jwk is not a public key")
        try:
            thumbprint = _sha256(thumbprint_input(jwk))
        except ValueError as error:
            raise _bad(f"the DPoP proof's jwk cannot be used: {error}") from error
        if thumbprint != jkt:
            raise _bad("the DPoP proof is not signed with the key that the token is bound to")
        if claims.get("ath") != _sha256(token):
            raise _bad("the DPoP proof's ath is not the hash of this token")
        _check_target(request, claims, origin)
        iat = _check_age(claims.get("iat"), now, self._leeway)
        jti = claims.get("jti")
        if not isinstance(jti, str) or not jti:
            raise _bad("the DPoP proof has no jti")
        if not _is_signed(proof, jwk, algorithm):
            raise _bad("the DPoP proof's signature does not match")
        identity = hashlib.sha256(f"{jkt}{jti}".encode("utf-8", "surrogatepass")).digest()[:16]
        self._seen.add(identity, iat + MAX_AGE, now)


def parse_proof(value: bytes) -> Proof:
    """Parse the value of a DPoP header. Raises Rejected."""
    parts = value.strip(b" \t").split(b".", 3)
    if len(value) > MAX_PROOF_BYTES or len(parts) != 3:
        raise _bad(f"the DPoP header is not one proof of at most {MAX_PROOF_BYTES // 1024} KiB")
    try:
        header, claims, signature = map(decode_part, parts)
        return Proof(parse_object(header), parse_object(claims), b".".join(parts[:2]), signature)
    except ValueError as error:
        raise _bad("the DPoP proof is not three parts of canonical base64url with JSON objects in them") from error


def certificate_of(value: bytes) -> bytes:
    """The DER in a header: percent-encoded PEM, as nginx writes it, or base64 (RFC 9440 section 2.1). Raises Rejected.

    It is not parsed: one that has the right hash is the right one.
    """
    if len(value) <= MAX_CERTIFICATE_BYTES:
        found = _PEM.fullmatch(unquote_to_bytes(value)) if value.startswith(b"-----") else _BASE64.fullmatch(value)
        if found is not None:
            try:
                return base64.b64decode(b"".join(found.group(found.re.groups).split()), validate=True)
            except ValueError:
                pass
    raise _bad("the header of the client's certificate holds neither one PEM nor base64")


def _check_target(request: AuthRequest, claims: Claims, origin: str) -> None:
    """``htm`` and ``htu`` (RFC 9449 section 4.3, points 8 and 9)."""
    if not request.method or claims.get("htm") != request.method:
        raise _bad("the DPoP proof's htm is not the method of the request")
    own_origin, path = _origin_and_path(request.url.decode("latin-1"))
    if origin:
        own_origin, _ = _origin_and_path(origin)
    # Only a path that directly follows a plain host is the request's: clients send hosts as `h?`.
    if not own_origin or not path or b"#" in request.url:
        raise _bad("the request's URL names no host, or is none that a DPoP proof could be for")
    htu = claims.get("htu")
    htu_origin, htu_path = _origin_and_path(htu) if isinstance(htu, str) else ("", "")
    if (htu_origin, htu_path or "/") != (own_origin, path):
        raise _bad(f"the DPoP proof's htu is not the URL of the request without its query, at {own_origin}")


def _origin_and_path(uri: str) -> tuple[str, str]:
    """Each is empty where the URL has none.

    Case, default ports and escapes of unreserved characters are normalised (RFC 3986 sections 6.2.2.1, 6.2.2.2 and
    6.2.3). Dot segments are compared as they are, because which of them count is for the policy to decide.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        return "", ""
    scheme, host = match[1].lower(), match[2].lower()
    port = int(match[3] or _DEFAULT_PORTS[scheme])
    authority = host if port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"
    return (f"{scheme}://{authority}" if host else ""), _ESCAPE.sub(_normal_escape, match[4] or "")


def _normal_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def _check_age(iat: object, now: float, leeway: float) -> float:
    """The proof's ``iat``."""
    if isinstance(iat, bool) or not isinstance(iat, int | float) or not abs(iat) <= LARGEST_TIME:
        raise _bad("the DPoP proof's iat is not a number of seconds")
    if now - iat > MAX_AGE:
        raise _bad(f"the DPoP proof is {math.ceil(now - iat)} s old: each request needs a new one")
    if iat - now > leeway:
        raise _bad(f"the DPoP proof's iat is {math.ceil(iat - now)} s in the future")
    return iat


def _is_signed(proof: Proof, jwk: Mapping[str, object], algorithm: str) -> bool:
    try:  # made for this algorithm alone, if the jwk names no other
        key = parse_key({"alg": algorithm, **jwk})
    except ValueError as error:
        raise _bad(f"the DPoP proof's jwk cannot be used: {error}") from error
    if not key.fits(algorithm):
        raise _bad("the DPoP proof's alg does not fit its jwk")
    return key.verify(algorithm, proof.signing_input, proof.signature)


def _sha256(data: bytes) -> str:
    """The form of ``jkt``, ``ath`` and ``x5t#S256``: base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")
