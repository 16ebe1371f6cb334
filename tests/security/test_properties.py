"""What holds for whatever anybody sends: properties, with inputs that hypothesis thinks of."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from verifier.decision import Decision
from verifier.observe.audit import Audit
from verifier.observe.batch import Observation
from verifier.proxies import nginx
from verifier.reasons import Reason

from .nginx_uri import matches, nginx_uri
from .tokens import CLAIMS, NOW, SIGNERS, Token, b64, hmac, ordinary_claims, ordinary_header, part, sign
from .world import MAIN, Answer, World

bounded = settings(settings.get_profile("security"))

HOST = b"https://api.example.com"
READER = Token("es").encode


class Complaints(logging.Handler):
    """Keeps what is logged as an error or with a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.levelno >= logging.ERROR or record.exc_info:
            self.records.append(record)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The main configuration, and whoever complains while it answers."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    with World(MAIN, tmp_path_factory.mktemp("properties")) as made:
        made.complaints = complaints.records  # type: ignore[attr-defined]
        yield made
    logging.getLogger().removeHandler(complaints)


def settled(world: World, answer: Answer) -> Answer:
    """The answer, found to be a decision and no accident; ``World.send`` has already looked at its form."""
    assert answer.status in (200, 401, 403)
    assert world.complaints == []  # type: ignore[attr-defined]
    return answer


# --- Whatever the headers are -----------------------------------------------------------------------------------------

# Bytes that h11 and httptools let through in a value.
header_bytes = st.binary(max_size=200).map(lambda value: value.translate(None, b"\r\n\0"))
token_like = st.builds(
    lambda scheme, space, parts, end: scheme + space + b".".join(parts) + end,
    st.sampled_from([b"Bearer", b"bearer", b"BEARER", b"Basic", b"DPoP", b""]),
    st.sampled_from([b" ", b"  ", b"\t", b",", b""]),
    st.lists(
        st.one_of(
            st.sampled_from(["generic", "internal", "es", "homelab"]).map(lambda name: part(ordinary_header(name))),
            st.sampled_from(["generic", "internal", "es", "homelab"]).map(lambda name: part(ordinary_claims(name))),
            st.binary(max_size=80).map(b64),
            header_bytes,
        ),
        max_size=5,
    ),
    st.sampled_from([b"", b" ", b"=", b",", b"\xff"]),
)


@bounded
@given(st.one_of(header_bytes, token_like))
@example(b"Bearer")
@example(b"Bearer ..")
@example(b"Bearer e30..")
def test_any_authorization_header_is_refused_in_good_form(world: World, value: bytes) -> None:
    assert settled(world, world.send([(b"authorization", value)])).status == 401


known_names = st.sampled_from(
    b"authorization x-original-url x-original-method x-original-uri x-request-id x-real-ip x-forwarded-for "
    b"x-forwarded-uri x-forwarded-method x-forwarded-host x-m2m-client-id x-m2m-role host cookie dpop".split()
)
any_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=20).map(str.encode)


@bounded
@given(st.lists(st.tuples(st.one_of(known_names, any_names), header_bytes), max_size=12), st.booleans())
def test_any_headers_get_an_answer_in_good_form(
    world: World, pairs: list[tuple[bytes, bytes]], with_token: bool
) -> None:
    good = [(b"authorization", b"Bearer " + READER())] if with_token else []
    settled(world, world.send([*good, *pairs], "/verify/api"))


@bounded
@given(st.lists(st.tuples(any_names, header_bytes), max_size=8))
def test_headers_that_nginx_does_not_set_change_nothing(world: World, pairs: list[tuple[bytes, bytes]]) -> None:
    ours = {b"authorization", b"x-original-url", b"x-original-method", b"x-request-id", b"x-real-ip"}
    token = READER()
    forged = [(name, value) for name, value in pairs if name not in ours]
    plain = world.ask(token, path="/verify/api")
    assert settled(world, world.ask(token, path="/verify/api", headers=forged)) == plain


@bounded
@given(st.binary(max_size=200))
@example(b"https://h/" + b"%" * 100)
@example(b"https://" + b"[" * 50)
def test_any_original_url_gets_an_answer_in_good_form(world: World, url: bytes) -> None:
    settled(world, world.ask(READER(), path="/verify/paths", url=url))


@bounded
@given(st.binary(max_size=60).map(lambda rest: HOST + b"/" + rest))
def test_any_target_gets_an_answer_in_good_form(world: World, url: bytes) -> None:
    settled(world, world.ask(READER(), path="/verify/paths", url=url))


# --- Whatever the auth URL is -----------------------------------------------------------------------------------------

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
def test_any_query_and_policy_get_an_answer_in_good_form(world: World, query: bytes, policy: str) -> None:
    settled(world, world.ask(READER(), path=f"/verify/{policy}", query=query))


@bounded
@given(
    narrowed_policies,
    st.sampled_from(["es", "generic", "okta", "homelab"]),
    st.sampled_from([b"/open/x", b"/db/x", b"/nowhere", b"/shut/x"]),
    st.lists(parameter, min_size=1, max_size=4),
)
def test_what_is_denied_stays_denied_with_any_parameter(
    world: World, path: str, issuer: str, target: bytes, parameters: list[bytes]
) -> None:
    token, url = Token(issuer).encode(), HOST + target
    allowed = world.ask(token, path=path, url=url).status == 200
    for length in range(1, len(parameters) + 1):
        answer = settled(world, world.ask(token, path=path, url=url, query=b"&".join(parameters[:length])))
        assert allowed or answer.status != 200
        allowed = answer.status == 200


@bounded
@given(narrowed_policies, st.lists(parameter, min_size=2, max_size=3))
def test_the_order_of_parameters_decides_nothing(world: World, path: str, parameters: list[bytes]) -> None:
    token = READER()
    queries = [b"&".join(order) for order in permutations(parameters)]
    assert len({world.ask(token, path=path, query=query).status for query in queries}) == 1


@bounded
@given(narrowed_policies, parameter, st.integers(2, 5))
def test_a_repeated_parameter_says_no_more_than_once(world: World, path: str, asked: bytes, times: int) -> None:
    token = READER()
    once = world.ask(token, path=path, query=asked)
    assert world.ask(token, path=path, query=b"&".join([asked] * times)).reason == once.reason


# --- Whatever an issuer signs -----------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=20),
        st.text("read write\r\n\t\x00\ud800é", max_size=12),
        st.sampled_from(["access", "id", "agent-1", "read", "api://m2m", "client-credentials", "jti-revoked", NOW]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
claim_names = st.one_of(
    st.sampled_from(
        [
            "iss",
            "sub",
            "aud",
            "exp",
            "nbf",
            "iat",
            "jti",
            "scope",
            "scp",
            "client_id",
            "cid",
            "azp",
            "appid",
            "roles",
            "gty",
            "token_use",
            "username",
            "device_key",
            "cognito:groups",
            "preferred_username",
            "typ",
            "cnf",
            "custom:tenant",
            "level",
            "groups",
        ]
    ),
    st.text(max_size=10),
)
cheap_issuers = st.sampled_from(["internal", "es", "ed", "people"])
signed_issuers = st.one_of(cheap_issuers, st.sampled_from([name for name in CLAIMS if name != "dark"]))


def as_json(value: Any) -> bytes:
    """JSON as a careless issuer writes it: NaN, and text that is no Unicode, included."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@bounded
@given(signed_issuers, st.dictionaries(claim_names, json_values, max_size=4))
def test_any_signed_claims_get_an_answer_in_good_form(world: World, issuer: str, changes: dict[str, Any]) -> None:
    settled(world, world.ask(Token(issuer, claims=as_json({**ordinary_claims(issuer), **changes}))))


@bounded
@given(cheap_issuers, json_values)
def test_any_signed_json_gets_an_answer_in_good_form(world: World, issuer: str, value: Any) -> None:
    settled(world, world.ask(Token(issuer, claims=as_json(value))))


@bounded
@given(cheap_issuers, st.dictionaries(st.one_of(claim_names, st.sampled_from(["alg", "kid", "crit"])), json_values))
def test_any_signed_header_gets_an_answer_in_good_form(world: World, issuer: str, changes: dict[str, Any]) -> None:
    settled(world, world.ask(Token(issuer, header=as_json({**ordinary_header(issuer), **changes}))))


@bounded
@given(st.dictionaries(claim_names, json_values, max_size=4))
def test_identity_is_told_only_where_the_request_is_allowed(world: World, changes: dict[str, Any]) -> None:
    answer = settled(world, world.ask(Token("internal", claims=as_json({**ordinary_claims("internal"), **changes}))))
    assert (answer.header("x-m2m-issuer") == "internal") == (answer.status == 200)


@bounded
@given(st.sampled_from(sorted(SIGNERS)), st.sampled_from(sorted(SIGNERS)), st.sampled_from(sorted(SIGNERS)))
def test_only_an_issuer_s_own_key_signs_for_it(world: World, issuer: str, named: str, signer: str) -> None:
    assume(issuer not in ("dark", "rogue") and signer != issuer)
    header = {**ordinary_header(issuer), "kid": SIGNERS[named].kid, "alg": SIGNERS[named].algorithm}
    claims = ordinary_claims(issuer)
    answer = world.ask(Token(header=part_json(header), claims=part_json(claims), signature=lambda it: sign(signer, it)))
    assert settled(world, answer).status == 401


@bounded
@given(st.binary(max_size=64))
def test_only_the_secret_signs_for_an_hs256_issuer(world: World, guess: bytes) -> None:
    assert settled(world, world.ask(Token("internal", signature=hmac(guess)))).reason == "bad_signature"


def part_json(value: Any) -> bytes:
    """Plain JSON."""
    return json.dumps(value).encode()


# --- Whatever the path is ---------------------------------------------------------------------------------------------

RULES: list[dict[str, Any]] = MAIN["policies"]["paths"]["rules"]


def may_read(path: str) -> bool:
    """Whether the policy ``paths`` lets a reader GET what nginx routes as ``path``."""
    rule = next((rule for rule in RULES if matches(rule["path"], path)), None)
    return rule is not None and "scope" not in rule


def routed_well(target: bytes, answer: Answer) -> bool:
    """Whether an allowed target is one that nginx routes to something the reader may read."""
    if answer.status != 200:
        return True
    routed = nginx_uri(target)
    return routed is not None and may_read(routed.decode())


PIECES = rb"""
    / /open /shut /files open shut x raw /.. /. .. . // %2e %2E %2f %5c \ ; ;x=1 ..; %3b %25 %252f %252e %00 %09 # ? %3f
    %23 %6f %73 %c3%a9 %ff %c0%ae % %u + %20 * 100%25
""".split()
targets = st.one_of(
    st.lists(st.sampled_from([*PIECES, b"\xff", b"\xc3\xa9"]), max_size=10),
    st.lists(
        st.sampled_from([b"/open", b"/shut", b"/x", b"/", b"/.", b"/..", b"/%2e%2e", b"/files", b"/raw", b";x"]),
        max_size=6,
    ),
).map(lambda parts: b"/" + b"".join(parts).removeprefix(b"/"))


@settings(bounded, max_examples=bounded.max_examples * 4)
@given(targets)
@example(b"/open/%2e%2e/shut/x")
@example(b"/open/..;/shut/x")
@example(b"/open/a#/../../shut/x")
def test_an_allowed_target_is_one_that_nginx_routes_where_the_reader_may_go(world: World, target: bytes) -> None:
    answer = settled(world, world.ask(READER(), path="/verify/paths", url=HOST + target))
    assert routed_well(target, answer)


def noise(target: bytes, place: int, kind: int) -> bytes:
    """The target with something put where a careless parser would not look."""
    slashes = [at for at, byte in enumerate(target) if byte == ord("/")] or [0]  # earlier noise may have taken all
    at = slashes[place % len(slashes)]
    letters = [at for at, byte in enumerate(target) if at and (chr(byte).isalpha() or byte in b"./")]
    letter = letters[place % len(letters)]
    before, after = target[:at], target[at:]
    percent = b"%%%02x" % target[letter]
    return (
        before + b"/." + after,
        before + b"/" + after,
        before + b"/x/.." + after,
        before + b"/open/.." + after,
        before + b"/x/%2e%2e" + after,
        before + b";x" + after,
        before + b"/..;" + after,
        before + b"\\.." + after,
        target[:letter] + percent + target[letter + 1 :],
        target[:letter] + percent.replace(b"%", b"%25") + target[letter + 1 :],
        target + b"/..",
        target + b"/../../open/a",
        target + b"?/open/a",
        target + b"#/open/a",
        target + b"%00",
        b"/open/.." + target,
        b"/" + target,
        target.swapcase(),
    )[kind]


@bounded
@given(
    st.sampled_from([b"/shut/x", b"/shut", b"/nowhere", b"/files/7/8/raw", b"/shut/open/a"]),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 17)), min_size=1, max_size=4),
)
def test_noise_never_opens_a_path_that_nginx_routes_elsewhere(
    world: World, target: bytes, changes: list[tuple[int, int]]
) -> None:
    token = READER()
    assert world.ask(token, path="/verify/paths", url=HOST + target).status == 403
    for place, kind in changes:
        target = noise(target, place, kind)
        answer = settled(world, world.ask(token, path="/verify/paths", url=HOST + target))
        assert routed_well(target, answer)


hosts = st.text("h.:?#@\\[]1%u é", max_size=8).map(str.encode)


@bounded
@given(hosts, targets)
@example(b"h?", b"/shut/x")
@example(b"h#", b"/shut/x")
def test_no_host_moves_the_place_where_the_path_begins(world: World, host: bytes, target: bytes) -> None:
    answer = settled(world, world.ask(READER(), path="/verify/paths", url=b"https://" + host + target))
    assert routed_well(target, answer)


ordinary_segments = st.text("abcXYZ019-_~.", min_size=1, max_size=8).filter(lambda it: it.strip("."))


@bounded
@given(st.lists(ordinary_segments, max_size=5), st.booleans())
def test_an_ordinary_path_is_never_refused_as_ambiguous(world: World, segments: list[str], slash: bool) -> None:
    target = "/".join(["/open", *segments]) + "/" * slash
    assert world.ask(READER(), path="/verify/paths", url=HOST + target.encode()).status == 200


# --- Whatever is audited ----------------------------------------------------------------------------------------------


@settings(bounded, max_examples=max(bounded.max_examples // 4, 10), suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(known_names, st.binary(max_size=2000)), max_size=6), st.sampled_from(list(Reason))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_request_leaves_one_bounded_line_of_json(
    tmp_path: Path, requests: list[tuple[list[tuple[bytes, bytes]], Reason]]
) -> None:
    with (tmp_path / "audit").open("w+b") as file:
        audit = Audit("all", descriptor=file.fileno())
        for headers, reason in requests:
            audit.observe([Observation(NOW, nginx.parse("default", b"", headers, "10.0.0.7"), Decision(reason), 0.0)])
        audit.start()
        audit.stop()
        lines = (tmp_path / "audit").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["reason"] for line in lines] == [reason for _, reason in requests]
    assert max(map(len, lines)) <= 64 * 1024
