"""``m2m-verifier explain``: shows the decision about one token step by step, made by the same gate as in ``serve``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import time
from typing import Any, NamedTuple, TextIO

from verifier.app import Runtime
from verifier.config import Config, ConfigError
from verifier.decision import Decision
from verifier.keys.fetch import TIME_LIMIT
from verifier.observe.metrics import Metrics
from verifier.policy.paths import AmbiguousPathError, parse_url
from verifier.proxies import fields, routes
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest, credentials, is_url
from verifier.tokens.claims import Claims
from verifier.tokens.jws import parse_compact, unverified_claims
from verifier.tokens.proofs import parse_proof

# The steps of a decision in their order, and the reasons that end it at each.
STEPS: dict[str, tuple[Reason, ...]] = {
    "auth request": (Reason.UNKNOWN_POLICY, Reason.BAD_AUTH_REQUEST, Reason.INTERNAL_ERROR),
    "token": (Reason.MISSING_TOKEN, Reason.MALFORMED_TOKEN),
    "algorithm": (Reason.UNSUPPORTED_ALGORITHM,),
    "issuer": (Reason.UNKNOWN_ISSUER,),
    "key": (Reason.UNKNOWN_KEY, Reason.KEYS_UNAVAILABLE),
    "signature": (Reason.BAD_SIGNATURE,),
    "times": (Reason.EXPIRED, Reason.NOT_YET_VALID),
    "M2M": (Reason.NOT_M2M,),
    "audience": (Reason.WRONG_AUDIENCE,),
    "claims": (Reason.INVALID_CLAIMS,),
    "proof": (Reason.BAD_PROOF,),
    "revocation": (Reason.REVOKED,),
    "client": (Reason.CLIENT_NOT_ALLOWED,),
    "issuer allowed": (Reason.ISSUER_NOT_ALLOWED,),
    "rule": (Reason.AMBIGUOUS_PATH, Reason.NO_MATCHING_RULE),
    "scope": (Reason.INSUFFICIENT_SCOPE,),
    "role": (Reason.NO_ROLE,),
    "headers": (Reason.HEADERS_TOO_LARGE,),
}

# All that a ``token: none`` rule leaves.
WITHOUT_TOKEN = frozenset({"auth request", "rule", "headers"})

REMEDIES: dict[Reason, str] = {
    Reason.OK: "nothing",
    Reason.MISSING_TOKEN: "send the header `Authorization: Bearer TOKEN`; check that the token is not empty",
    Reason.MALFORMED_TOKEN: "send one access token exactly as issued: no quotes, no line break, no second token",
    Reason.UNSUPPORTED_ALGORITHM: "list the token's `alg` under the issuer's `algorithms`, if the issuer uses it",
    Reason.UNKNOWN_ISSUER: "configure an issuer with exactly this `iss`, or use a token of a configured issuer",
    Reason.UNKNOWN_KEY: "fetch a new token; if new ones fail too, they come from another environment of the issuer",
    Reason.BAD_SIGNATURE: "fetch a new token: this one was changed, truncated, or signed with another key",
    Reason.EXPIRED: "fetch a new token, and the next one before `exp`; if this one is new, compare the clocks",
    Reason.NOT_YET_VALID: "compare the clocks of issuer and verifier, or raise `leeway`",
    Reason.WRONG_AUDIENCE: "request a token for this API; if `aud` names it already, list that under `audience`",
    Reason.INVALID_CLAIMS: "correct the claims at the issuer; RFC 7519 section 4.1 gives their types",
    Reason.BAD_PROOF: "send what `cnf` names: with each request a new DPoP proof, or the client's certificate",
    Reason.REVOKED: "remove the client or the `jti` from `revoked`, if it is there by mistake",
    Reason.NOT_M2M: "fetch it with the client credentials grant; if you did, set the issuer's `profile`",
    Reason.CLIENT_NOT_ALLOWED: "add the client to `clients` of the issuer, the policy or the auth URL",
    Reason.ISSUER_NOT_ALLOWED: "add the issuer to the policy's `issuers`, or to the auth URL's",
    Reason.INSUFFICIENT_SCOPE: "grant the client the scope, and fetch a new token that asks for it",
    Reason.NO_ROLE: "map the client or one of its scopes under `roles`",
    Reason.NO_MATCHING_RULE: "add a rule for this method and path to the policy",
    Reason.AMBIGUOUS_PATH: "send the path in its plain form: no dot segments, empty segments or encoded slashes",
    Reason.UNKNOWN_POLICY: "name a policy of the configuration in the auth URL",
    Reason.BAD_AUTH_REQUEST: "correct the auth URL's query: it takes scope, client and issuer",
    Reason.HEADERS_TOO_LARGE: "grant fewer scopes, map fewer claims, or raise `max_header_bytes` and nginx's buffer",
    Reason.KEYS_UNAVAILABLE: "check whether the issuer's key set can be fetched from here",
    Reason.INTERNAL_ERROR: "report this defect of the verifier: its log names the place in the code",
}


_HEADER = re.compile(rb"([A-Za-z0-9-]+):[ \t]*(.*)")
_PASTED = re.compile(rb"(?:authorization:)?\s*(?:(bearer|dpop)(?:\s+|$))?(.*)", re.IGNORECASE | re.DOTALL)


class Step(NamedTuple):
    """One step of the decision. ``passed`` is None where the decision ended before it, or did not need it."""

    name: str
    passed: bool | None
    detail: str


def run(config: Config, options: argparse.Namespace, given: bytes, out: TextIO) -> int:
    """Explain the decision about a token, and the headers that may follow it, for the request in ``options``.

    Returns the exit status: 0 allowed, 1 denied, 2 indeterminate.

    Raises:
        ConfigError: an option is not usable.
    """
    request = _request(options, given)
    decision = asyncio.run(_decide(config, request))
    write = _write_json if options.json else _write_text
    write(decision, _steps(decision, _facts(config, request, decision)), out)
    return {200: 0, 503: 2}.get(decision.status, 1)


def _request(options: argparse.Namespace, given: bytes) -> AuthRequest:
    policy, query = options.policy or "default", b""
    url = options.url.encode()
    if not is_url(url):
        raise ConfigError(["--url: must be the complete URL of the original request, with scheme and host"])
    if options.auth_url is not None:
        if options.policy is not None:
            raise ConfigError(["--auth-url: already names the policy: omit --policy"])
        policy, query = parse_auth_url(options.auth_url, options.method)
    token, headers = _split(given)
    # The whole header, or a part of it, is accepted too. The scheme counts: DPoP is for tokens that are bound to a key.
    scheme, token = _PASTED.fullmatch(token).groups()  # type: ignore[union-attr] # it matches everything
    authorization = (scheme or b"Bearer") + b" " + token if token else None
    proofs = fields.dpop_proofs(headers)
    return AuthRequest(policy, query, authorization, options.method, url, proofs=proofs, headers=headers)


def _split(given: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The token, and the request's other headers, each on a line of its own as in ``DPoP: PROOF``."""
    token, headers = [], []
    for line in given.splitlines():
        header = _HEADER.fullmatch(line.strip())
        if header is None or header[1].lower() == b"authorization":
            token.append(line)
        else:
            headers.append((header[1].lower(), header[2]))
    return b"\n".join(token).strip(), headers


def parse_auth_url(written: str, method: str = "GET") -> tuple[str, bytes]:
    """Policy and query of an auth URL as a proxy has it, with or without its host. Raises ConfigError."""
    path, _, query = written.partition("?")
    path = re.sub(r"^(?:https?://)?[^/]*", "", path)
    named = routes.auth_request(method, path, path.encode(), query.encode(), (), "")
    if named is None:
        raise ConfigError([f"--auth-url: must be {routes.FORMS}"])
    return named.policy, named.query


async def _decide(config: Config, request: AuthRequest) -> Decision:
    runtime = Runtime(config, Metrics(), fetch=None, clock=time.time)
    try:
        runtime.start()
        await runtime.first_keys(2 * TIME_LIMIT)
        return await runtime.decide(request)
    finally:
        await runtime.stop()


def _facts(config: Config, request: AuthRequest, decision: Decision) -> dict[str, str]:
    """What each step examined, by step. Never the signature."""
    facts = {"auth request": f"policy {request.policy}" + (f", {request.query.decode()}" if request.query else "")}
    policy = config.policies.by_name.get(decision.policy)
    if policy is not None and policy.rules:
        facts["rule"] = f"{request.method} {_path(request.url)}"
    try:
        parts = parse_compact(credentials(request).token)
        kid = "no kid" if parts.header.kid is None else f"kid {_safe(parts.header.kid)}"
        facts |= {"token": "three parts, well formed", "algorithm": _safe(parts.header.algorithm), "key": kid}
        claims = unverified_claims(parts)
    except Rejected:
        return facts
    facts["issuer"] = json.dumps(claims.get("iss"))
    facts["times"] = ", ".join(f"{name} {_time(claims[name])}" for name in ("iat", "nbf", "exp") if name in claims)
    for step, name in (("audience", "aud"), ("revocation", "jti")):
        if name in claims:
            facts[step] = f"{name} {json.dumps(claims[name])}"
    facts["proof"] = _proof(claims, request)
    if decision.token is not None:
        principal = decision.token.principal
        facts["M2M"] = facts["client"] = f"client {principal.client_id}"
        facts |= {"issuer allowed": principal.issuer, "role": principal.role or "none"}
        facts["scope"] = f"granted: {principal.scope or 'none'}"
    return facts


def _proof(claims: Claims, request: AuthRequest) -> str:
    """What the token is bound to, and what the DPoP proof is for, if there is one."""
    cnf = claims.get("cnf")
    if not isinstance(cnf, dict):
        return ""
    facts = ["bound by " + " and ".join(map(_safe, cnf))] if cnf else []
    for value in request.proofs:
        with contextlib.suppress(Rejected):
            proof = parse_proof(value).claims
            shown = (f"{name} {_safe(str(proof.get(name)))}" for name in ("htm", "htu"))
            facts.append(f"proof for {', '.join(shown)}, iat {_time(proof.get('iat'))}")
    return ", ".join(facts)


def _safe(value: str) -> str:
    """Untrusted text for a terminal: control characters, line breaks and lone surrogates are escaped."""
    return value if value.isascii() and value.isprintable() else json.dumps(value)


def _time(value: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(value))
    except (TypeError, ValueError, OverflowError, OSError):
        return json.dumps(value)


def _path(url: bytes) -> str:
    try:
        return parse_url(url).path
    except AmbiguousPathError:
        return url.decode("utf-8", "backslashreplace")


def _steps(decision: Decision, facts: dict[str, str]) -> list[Step]:
    steps: list[Step] = []
    passed: bool | None = True
    needs_token = decision.reason is not Reason.OK or decision.token is not None
    for name, reasons in STEPS.items():
        detail = facts.get(name, "")
        if not (needs_token or name in WITHOUT_TOKEN):
            steps.append(Step(name, None, "no token needed"))
        elif passed and decision.reason in reasons:
            steps.append(Step(name, False, f"{detail}; {decision.description}".lstrip("; ")))
            passed = None
        else:
            steps.append(Step(name, passed, detail if passed else ""))
    return steps


def _write_text(decision: Decision, steps: list[Step], out: TextIO) -> None:
    marks = {True: "ok  ", False: "FAIL", None: "  - "}
    reason = decision.reason
    verdict = {200: "allowed", 503: "indeterminate"}.get(decision.status, "denied")
    lines = [f"{marks[step.passed]}  {step.name:<15} {step.detail}".rstrip() for step in steps]
    lines += ["", f"{decision.status} {reason}: {verdict}"]
    if reason is not Reason.OK:
        lines += [f"because: {decision.description}", f"to change it: {REMEDIES[reason]}"]
        if reason is Reason.INSUFFICIENT_SCOPE:
            lines.append(f"scope needed: {decision.scope}")
        if decision.report:
            lines.append("the policy is in report mode: nginx receives 200 nevertheless")
    print(*lines, sep="\n", file=out)


def _write_json(decision: Decision, steps: list[Step], out: TextIO) -> None:
    explanation = {
        "status": decision.status,
        "reason": decision.reason,
        "description": decision.description,
        "remedy": REMEDIES[decision.reason],
        "scope_needed": decision.scope if decision.reason is Reason.INSUFFICIENT_SCOPE else "",
        "report_mode": decision.report,
        "steps": [step._asdict() for step in steps],
    }
    print(json.dumps(explanation, indent=2), file=out)
