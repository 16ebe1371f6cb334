"""What holds for any input: properties, with inputs that hypothesis generates."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.unit.support import audit_lines, observation
from verifier.decision import Decision
from verifier.proxies import nginx
from verifier.reasons import Reason

from .nginx_uri import matches, nginx_uri
from .running_app import MAIN, RunningApp
from .tokens import CLAIMS, NOW, SIGNERS, Token, b64, hmac, ordinary_claims, ordinary_header, part, sign

bounded = settings(settings.get_profile("security"))

HOST = b"https://api.example.com"
READER = Token("es").encode


@pytest.fixture(scope="module")
def app(apps: Callable[[str], RunningApp]) -> RunningApp:
    """Every issuer has keys, so that each answer must be a decision."""
    return apps("reachable")


# --- Any headers ------------------------------------------------------------------------------------------------------

# Bytes that HTTP parsers let through in a value.
header_bytes = st.binary(max_size=200).map(lambda value: value.translate(None, b"\r\n\0"))
token_parts = st.sampled_from([ordinary(name) for name in ("generic", "internal", "es", "homelab")
                               for ordinary in (ordinary_header, ordinary_claims)]).map(part)  # fmt: skip
token_like = st.builds(
    lambda scheme, space, parts, end: scheme + space + b".".join(parts) + end,
    st.sampled_from([b"Bearer", b"bearer", b"BEARER", b"Basic", b"DPoP", b""]),
    st.sampled_from([b" ", b"  ", b"\t", b",", b""]),
    st.lists(st.one_of(token_parts, st.binary(max_size=80).map(b64), header_bytes), max_size=5),
    st.sampled_from([b"", b" ", b"=", b",", b"\xff"]),
)
known_names = st.sampled_from(
    b"authorization x-original-url x-original-method x-original-uri x-request-id x-real-ip x-forwarded-for "
    b"x-forwarded-uri x-forwarded-method x-forwarded-host x-m2m-client-id x-m2m-role host cookie dpop".split()
)
any_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=20).map(str.encode)


@bounded
@given(st.one_of(header_bytes, token_like))
@example(b"Bearer")
@example(b"Bearer ..")
@example(b"Bearer e30..")
def test_any_authorization_header_is_refused_in_valid_form(app: RunningApp, value: bytes) -> None:
    assert app.send([(b"authorization", value)]).status == 401


@bounded
@given(st.lists(st.tuples(st.one_of(known_names, any_names), header_bytes), max_size=12), st.booleans())
def test_any_headers_get_an_answer_in_valid_form(
    app: RunningApp, pairs: list[tuple[bytes, bytes]], with_token: bool
) -> None:
    token = [(b"authorization", b"Bearer " + READER())] if with_token else []
    app.send([*token, *pairs], "/verify/api")


@bounded
@given(st.lists(st.tuples(any_names, header_bytes), max_size=8))
def test_headers_that_nginx_does_not_set_change_nothing(app: RunningApp, pairs: list[tuple[bytes, bytes]]) -> None:
    set_by_nginx = {b"authorization", b"x-original-url", b"x-original-method", b"x-request-id", b"x-real-ip"}
    token = READER()
    forged = [(name, value) for name, value in pairs if name not in set_by_nginx]
    assert app.ask(token, path="/verify/api", headers=tuple(forged)) == app.ask(token, path="/verify/api")


@bounded
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda rest: HOST + b"/" + rest)))
@example(b"https://h/" + b"%" * 100)
@example(b"https://" + b"[" * 50)
def test_any_original_url_gets_an_answer_in_valid_form(app: RunningApp, url: bytes) -> None:
    app.ask(READER(), path="/verify/paths", url=url)


# --- Any auth URL -----------------------------------------------------------------------------------------------------

parameter = st.one_of(
    st.sampled_from(
        b"scope=read scope=write scope=read,write client=es/agent-1 client=es/agent-2,es/agent-1 "
        b"client=generic/agent-1 issuer=es issuer=es,okta issuer=okta".split()
    ),
    st.builds(
        lambda name, value: name + b"=" + value,
        st.sampled_from([*b"scope client issuer Scope policy mode".split(), b""]),
        st.text("readwites/-1,%+;= \x00é", max_size=12).map(str.encode),
    ),
    st.binary(max_size=12),
)
narrowed_policies = st.sampled_from(["/verify", "/verify/api", "/verify/paths", "/verify/narrow", "/verify/mcp"])


@bounded
@given(st.binary(max_size=100), st.text(max_size=30))
def test_any_query_and_policy_get_an_answer_in_valid_form(app: RunningApp, query: bytes, policy: str) -> None:
    app.ask(READER(), path=f"/verify/{policy}", query=query)


@bounded
@given(
    narrowed_policies,
    st.sampled_from(["es", "generic", "okta", "homelab"]),
    st.sampled_from([b"/open/x", b"/db/x", b"/nowhere", b"/shut/x"]),
    st.lists(parameter, min_size=1, max_size=4),
)
def test_what_is_denied_stays_denied_with_any_parameter(
    app: RunningApp, path: str, issuer: str, target: bytes, parameters: list[bytes]
) -> None:
    token, url = Token(issuer).encode(), HOST + target
    queries = [b"&".join(parameters[:length]) for length in range(len(parameters) + 1)]
    allowed = [app.ask(token, path=path, url=url, query=query).status == 200 for query in queries]
    assert allowed == sorted(allowed, reverse=True)


@bounded
@given(narrowed_policies, st.lists(parameter, min_size=2, max_size=3))
def test_the_order_of_parameters_decides_nothing(app: RunningApp, path: str, parameters: list[bytes]) -> None:
    token = READER()
    queries = [b"&".join(order) for order in permutations(parameters)]
    assert len({app.ask(token, path=path, query=query).status for query in queries}) == 1


@bounded
@given(narrowed_policies, parameter, st.integers(2, 5))
def test_a_repeated_parameter_means_the_same_as_one(app: RunningApp, path: str, asked: bytes, times: int) -> None:
    token = READER()
    once = app.ask(token, path=path, query=asked)
    assert app.ask(token, path=path, query=b"&".join([asked] * times)).reason == once.reason


# --- Any signed content -----------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.text("read write\r\n\t\x00\ud800é", max_size=12),
    st.sampled_from(["access", "id", "agent-1", "read", "api://m2m", "client-credentials", "jti-revoked", NOW]),
)
json_values = st.one_of(
    scalars,
    st.lists(st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=4),
    st.dictionaries(st.text(max_size=8), scalars, max_size=4),
)
CLAIM_NAMES = """
    iss sub aud exp nbf iat jti scope scp client_id cid azp appid roles gty token_use username device_key
    cognito:groups preferred_username typ cnf sid auth_time custom:tenant level groups
""".split()  # noqa: SIM905 - a list of one name a line says no more
claim_names = st.one_of(st.sampled_from(CLAIM_NAMES), st.text(max_size=10))
header_names = st.one_of(claim_names, st.sampled_from(["alg", "kid", "crit", "typ", "b64", "enc", "x5t", "x5t#S256"]))
cheap_issuers = st.sampled_from(["internal", "es", "ed", "people"])
signed_issuers = st.one_of(cheap_issuers, st.sampled_from([name for name in CLAIMS if name != "dark"]))


def as_json(value: Any) -> bytes:
    """JSON as a careless issuer writes it: NaN, and text that is not Unicode, included."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@bounded
@given(signed_issuers, st.dictionaries(claim_names, json_values, max_size=4))
def test_any_signed_claims_get_an_answer_in_valid_form(app: RunningApp, issuer: str, changes: dict[str, Any]) -> None:
    answer = app.ask(Token(issuer, claims=as_json({**ordinary_claims(issuer), **changes})))
    assert answer.header("x-m2m-issuer") == (issuer if answer.status == 200 else "")


@bounded
@given(cheap_issuers, json_values)
def test_any_signed_json_gets_an_answer_in_valid_form(app: RunningApp, issuer: str, value: Any) -> None:
    app.ask(Token(issuer, claims=as_json(value)))


@bounded
@given(cheap_issuers, st.dictionaries(header_names, json_values, max_size=4))
def test_any_signed_header_gets_an_answer_in_valid_form(app: RunningApp, issuer: str, changes: dict[str, Any]) -> None:
    app.ask(Token(issuer, header=as_json({**ordinary_header(issuer), **changes})))


@bounded
@given(st.sampled_from(sorted(SIGNERS)), st.sampled_from(sorted(SIGNERS)), st.sampled_from(sorted(SIGNERS)))
def test_only_an_issuer_s_own_key_signs_for_it(app: RunningApp, issuer: str, named: str, signer: str) -> None:
    assume(issuer not in ("dark", "rogue") and signer != issuer)
    algorithm, kid = SIGNERS[named]
    made = Token(issuer, header={"alg": algorithm, "kid": kid}, signature=lambda data: sign(signer, data))
    assert app.ask(made).status == 401


@bounded
@given(st.binary(max_size=64))
def test_only_the_secret_signs_for_an_hs256_issuer(app: RunningApp, guess: bytes) -> None:
    assert app.ask(Token("internal", signature=hmac(guess))).reason == "bad_signature"


# --- Any path ---------------------------------------------------------------------------------------------------------

RULES: list[dict[str, Any]] = MAIN["policies"]["paths"]["rules"]


def may_read(path: str) -> bool:
    """Whether the policy ``paths`` lets a reader GET what nginx routes as ``path``."""
    rule = next((rule for rule in RULES if matches(rule["path"], path)), None)
    return rule is not None and "scope" not in rule


def check_routing(app: RunningApp, target: bytes, host: bytes = HOST) -> None:
    """If a target is allowed, nginx must route it to something that the reader may read."""
    if app.ask(READER(), path="/verify/paths", url=host + target).status == 200:
        routed = nginx_uri(target)
        assert routed is not None
        assert may_read(routed.decode())


PIECES = rb"""
    / /open /shut /files open shut x raw /.. /. .. . // %2e %2E %2f %5c \ ; ;x=1 ..; %3b %25 %252f %252e %00 %09 # ? %3f
    %23 %6f %73 %c3%a9 %ff %c0%ae % %u + %20 * 100%25
""".split()
targets = st.one_of(
    st.lists(st.sampled_from([*PIECES, b"\xff", b"\xc3\xa9"]), max_size=10),
    st.lists(st.sampled_from(rb"/open /shut /x / /. /.. /%2e%2e /files /raw ;x".split()), max_size=6),
).map(lambda parts: b"/" + b"".join(parts).removeprefix(b"/"))


@settings(bounded, max_examples=bounded.max_examples * 4)
@given(targets)
@example(b"/open/%2e%2e/shut/x")
@example(b"/open/..;/shut/x")
@example(b"/open/a#/../../shut/x")
def test_an_allowed_target_is_one_that_nginx_routes_where_the_reader_may_go(app: RunningApp, target: bytes) -> None:
    check_routing(app, target)


def noise(target: bytes, place: int, kind: int) -> bytes:
    """The target with something inserted where a careless parser would not look."""
    slashes = [at for at, byte in enumerate(target) if byte == ord("/")] or [0]  # earlier noise may have taken all
    at = slashes[place % len(slashes)]
    letters = [at for at, byte in enumerate(target) if at and (chr(byte).isalpha() or byte in b"./")]
    letter = letters[place % len(letters)]
    percent = b"%%%02x" % target[letter]
    inserted = rb"/. / /x/.. /open/.. /x/%2e%2e ;x /..; \..".split()
    edited = [target[:at] + piece + target[at:] for piece in inserted]
    edited += [target[:letter] + piece + target[letter + 1 :] for piece in (percent, percent.replace(b"%", b"%25"))]
    edited += [target + piece for piece in b"/.. /../../open/a ?/open/a #/open/a %00".split()]
    edited += [b"/open/.." + target, b"/" + target, target.swapcase()]
    return edited[kind % len(edited)]


@bounded
@given(
    st.sampled_from([b"/shut/x", b"/shut", b"/nowhere", b"/files/7/8/raw", b"/shut/open/a"]),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 17)), min_size=1, max_size=4),
)
def test_noise_never_opens_a_path_that_nginx_routes_elsewhere(
    app: RunningApp, target: bytes, changes: list[tuple[int, int]]
) -> None:
    assert app.ask(READER(), path="/verify/paths", url=HOST + target).status == 403
    for place, kind in changes:
        target = noise(target, place, kind)
        check_routing(app, target)


hosts = st.text("h.:?#@\\[]1%u é", max_size=8).map(str.encode)


@bounded
@given(hosts, targets)
@example(b"h?", b"/shut/x")
@example(b"h#", b"/shut/x")
def test_no_host_moves_the_place_where_the_path_begins(app: RunningApp, host: bytes, target: bytes) -> None:
    check_routing(app, target, b"https://" + host)


ordinary_segments = st.text("abcXYZ019-_~.", min_size=1, max_size=8).filter(lambda it: it.strip("."))


@bounded
@given(st.lists(ordinary_segments, max_size=5), st.booleans())
def test_an_ordinary_path_is_never_refused_as_ambiguous(app: RunningApp, segments: list[str], slash: bool) -> None:
    target = "/".join(["/open", *segments]) + "/" * slash
    assert app.ask(READER(), path="/verify/paths", url=HOST + target.encode()).status == 200


# --- Any audited request ----------------------------------------------------------------------------------------------

audited = st.tuples(st.lists(st.tuples(known_names, st.binary(max_size=2000)), max_size=6), st.sampled_from(Reason))


@settings(bounded, max_examples=max(bounded.max_examples // 4, 10), suppress_health_check=list(HealthCheck))
@given(st.lists(audited, min_size=1, max_size=5))
def test_any_request_leaves_one_bounded_line_of_json(
    tmp_path: Path, requests: list[tuple[list[tuple[bytes, bytes]], Reason]]
) -> None:
    observed = [
        observation(NOW, nginx.parse("default", b"", headers, "10.0.0.7"), Decision(reason), 0.0)
        for headers, reason in requests
    ]
    lines = audit_lines(tmp_path, [observed])
    assert [json.loads(line)["reason"] for line in lines] == [reason for _, reason in requests]
    assert max(map(len, lines)) <= 64 * 1024
