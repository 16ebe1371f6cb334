"""Nothing that was sent or configured in confidence comes out again: not in logs, audit, metrics, answers or reprs."""

from __future__ import annotations

import io
import json
import logging
import traceback
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from verifier.config import ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.keys.jwk import parse_key, parse_key_file
from verifier.tools import explain

from .cases import Request
from .test_hostile import TABLE
from .tokens import SECRET, Token, b64, ordinary_claims, ordinary_header, public_jwk, sign
from .world import MAIN, World, configure

SHORTEST = 16  # characters: a shorter part is no secret, and may occur anywhere


class Everything(logging.Handler):
    """All that is logged at any level, as a formatter would write it, with traces and the causes of errors."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down."""
        self.text.write(f"{self.format(record)} {record.args!r}\n")


class Traffic(NamedTuple):
    """What was sent in confidence, and all that came out."""

    secrets: dict[str, bytes]
    """By the row's name."""
    seen: dict[str, bytes]
    """By the place where it came out."""
    sent: int


def secrets_of(token: bytes) -> Iterator[bytes]:
    """The whole token, and its signature alone."""
    yield token
    if b"." in token:
        yield token.rpartition(b".")[2]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    """The whole hostile table, at log level DEBUG and with every decision audited."""
    folder = tmp_path_factory.mktemp("secrets")
    log, root = Everything(), logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    answers, secrets = [], {}
    rows = [(case.name, case.request, case.encode()) for case in TABLE if case.world == "main"]
    good = Token("ed").encode()
    rows += [
        ("token in the path", Request(url=b"https://h/db/" + good), good),
        ("token in the path of a ruled policy", Request(path="/verify/api", url=b"https://h/db/" + good), good),
        ("token in the query", Request(path="/verify/api", url=b"https://h/db/?access_token=" + good), good),
        ("token as the host", Request(url=b"https://" + good + b"/"), good),
        ("token as the method", Request(method=good), good),
        ("token as the request's id", Request(headers=((b"x-request-id", good),)), good),
        ("token as the address", Request(headers=((b"x-real-ip", good),)), good),
        ("token as the policy", Request(path="/verify/" + good.decode()), good),
        ("token as another token's kid", Request(), Token(header={"kid": good.decode()}).encode()),
        ("token as another token's iss", Request(), Token(claims={"iss": good.decode()}).encode()),
        ("token with white space in its header", Request(), spaced := spaced_token()),
        ("the same in the path", Request(url=b"https://h/db/" + spaced), spaced),
        ("the same as the request's id", Request(headers=((b"x-request-id", spaced),)), spaced),
        ("token with a line break in its header", Request(), broken := spaced_token(b"{\n")),
        ("the same in the path, too", Request(url=b"https://h/db/" + broken), broken),
    ]
    with World(MAIN, folder, audit_file=folder / "audit") as world:
        for name, request, token in rows:
            answers.append(request.ask(world, token))
            for place, secret in enumerate(secrets_of(token or b"")):
                if len(secret) >= SHORTEST:
                    secrets[f"{name}, {place}"] = secret
        metrics = world.exposition()
    root.removeHandler(log)
    root.setLevel(before)
    seen = {
        "log": log.text.getvalue().encode("utf-8", "backslashreplace"),
        "audit": (folder / "audit").read_bytes(),
        "metrics": metrics,
        "answers": b"\n".join(answer.body for answer in answers),
        "headers": b"\n".join(name + b": " + value for answer in answers for name, value in answer.headers),
    }
    return Traffic(secrets, seen, len(rows))


def spaced_token(opening: bytes = b"{ ") -> bytes:
    """A good token neither of whose parts begins as most do."""
    header, claims = (json.dumps(part).encode() for part in (ordinary_header("ed"), ordinary_claims("ed")))
    return Token("ed", header=opening + header[1:], claims=opening + claims[1:]).encode()


@pytest.mark.parametrize("place", ["log", "audit", "metrics", "answers", "headers"])
def test_no_token_and_no_signature_comes_out(traffic: Traffic, place: str) -> None:
    seen = traffic.seen[place]
    assert [name for name, secret in traffic.secrets.items() if secret in seen] == []


@pytest.mark.parametrize("place", ["log", "audit", "metrics", "answers", "headers"])
def test_the_configured_secret_does_not_come_out(traffic: Traffic, place: str) -> None:
    assert not any(form in traffic.seen[place] for form in (SECRET, b64(SECRET), SECRET.hex().encode()))


def test_each_decision_leaves_one_line_of_json(traffic: Traffic) -> None:
    lines = traffic.seen["audit"].splitlines()
    assert [list(json.loads(line))[:4] for line in lines] == [["time", "event", "status", "reason"]] * traffic.sent


def test_no_audit_line_can_move_a_terminal_or_forge_another(traffic: Traffic) -> None:
    assert all(byte == 10 or 0x20 <= byte <= 0x7E for byte in traffic.seen["audit"])


def test_no_label_holds_what_a_stranger_sent(traffic: Traffic) -> None:
    strange = (b"nope", b"nobody", b"alice", b"nowhere", b"other.example", b"PROPFIND", b"forged")
    assert [word for word in strange if word in traffic.seen["metrics"]] == []


def test_metrics_have_no_more_series_than_reasons_policies_and_issuers_allow(traffic: Traffic) -> None:
    assert traffic.seen["metrics"].count(b"m2m_verifier_decisions_total{") < 150


# --- What is configured -----------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """All ways to print an object."""
    return f"{value!r} {value} {vars(value) if hasattr(value, '__dict__') else ''}"


def test_a_configuration_does_not_show_its_secret(tmp_path: Path) -> None:
    config = configure(MAIN, tmp_path)
    assert b64(SECRET).decode() not in shown(config)


def test_keys_do_not_show_themselves() -> None:
    key = parse_key(public_jwk("internal"), symmetric=True)
    assert not any(form in shown(key) + shown([key]) for form in (b64(SECRET).decode(), repr(SECRET), SECRET.decode()))


BROKEN_KEYS: dict[str, Any] = {
    "k of the wrong type": {"kty": "oct", "kid": "1", "k": [b64(SECRET).decode()]},
    "k too short": {"kty": "oct", "kid": "1", "k": "c2VjcmV0LXZhbHVlLTE"},
    "k with white space": {"kty": "oct", "kid": "1", "k": " c2VjcmV0LXZhbHVlLTE !"},
    "kid of the wrong type": {"kty": "oct", "kid": 1, "k": b64(SECRET).decode()},
    "a private RSA key cut short": {"kty": "RSA", "kid": "1", "n": "AQAB", "e": "AQAB", "d": "c2VjcmV0LXZhbHVlLTE"},
    "for another use": {"kty": "oct", "use": "enc", "k": b64(SECRET).decode()},
}


@pytest.mark.parametrize("jwk", BROKEN_KEYS.values(), ids=BROKEN_KEYS)
def test_an_error_about_a_key_does_not_quote_it(jwk: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValueError, match=r".") as caught:
        parse_key_file(json.dumps({"keys": [jwk]}).encode())
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value)
    assert not any(secret in told for secret in ("c2VjcmV0LXZhbHVlLTE", b64(SECRET).decode(), "secret-value"))


BROKEN_FILES = {
    "cut off": b'{"keys": [{"kty": "oct", "k": "%s"',
    "not JSON": b"k: %s",
    "no keys": b'{"k": "%s"}',
    "not UTF-8": b'{"k": "%s\xff"}',
    "k twice": b'{"keys": [{"kty": "oct", "k": "%s", "k": "%s"}]}',
}


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_an_error_about_a_key_file_does_not_quote_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(content.replace(b"%s", b64(SECRET)))
    (tmp_path / "m2m.yaml").write_text(
        "issuers: [{name: i, issuer: 'https://i.example', audience: any, algorithms: [HS256], jwks_file: keys.json}]"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "m2m.yaml", Environment())
    assert b64(SECRET).decode() not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_an_error_about_a_file_that_is_a_token_does_not_quote_it(tmp_path: Path) -> None:
    token = Token().encode()
    (tmp_path / "m2m.yaml").write_bytes(b"issuers: " + token)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "m2m.yaml", Environment())
    assert token.decode() not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


# --- What explain prints ----------------------------------------------------------------------------------------------


def explained(token: bytes, folder: Path, *, as_json: bool) -> tuple[int, str]:
    """What ``explain`` writes about a token of the internal issuer, whose key is at hand."""
    only = {**MAIN, "issuers": [MAIN["issuers"][1]], "policies": {}, "roles": {}, "revoked": {}}
    options = Namespace(json=as_json, policy=None, auth_url=None, method="GET", url="https://h/db")
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")  # strict, as a terminal's stream is
    code = explain.run(configure(only, folder), options, token, out)
    out.flush()
    return code, out.buffer.getvalue().decode()  # type: ignore[attr-defined]


EXPLAINED = {
    "ordinary": Token("internal"),
    "expired": Token("internal", claims={"exp": 1}),
    "forged": Token("internal", signature=lambda data: sign("generic", data)),
    "with a terminal escape as kid": Token("internal", header={"kid": "\x1b[2J\x1b]0;x\x07"}),
    "with a terminal escape as alg": Token("internal", header={"alg": "\x1b[2J"}),
    "with a line break as kid": Token("internal", header={"kid": "x\nok    everything is fine"}),
    "with a lone surrogate as kid": Token("internal", header={"kid": "\ud800"}),
    "with a terminal escape as iss": Token("internal", claims={"iss": "\x1b[2J"}),
    "with a terminal escape as aud": Token("internal", claims={"aud": ["\x1b[2J"]}),
    "with a lone surrogate as jti": Token("internal", claims={"jti": "\ud800", "exp": 2**40}),
    "with a date beyond the calendar": Token("internal", claims={"exp": 2**53}),
}


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("token", EXPLAINED.values(), ids=EXPLAINED)
def test_explain_shows_neither_token_nor_signature_nor_controls(token: Token, as_json: bool, tmp_path: Path) -> None:
    encoded = token.encode()
    _, told = explained(encoded, tmp_path, as_json=as_json)
    assert not any(secret.decode() in told for secret in secrets_of(encoded))
    assert all(char == "\n" or char.isprintable() for char in told)
    assert not [line for line in told.splitlines() if line.startswith("ok    everything")]
