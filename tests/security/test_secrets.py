"""No secret that was sent or configured comes out: not in logs, audit, metrics, answers, messages or reprs."""

from __future__ import annotations

import io
import json
import logging
import os
import traceback
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from verifier.config import ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.keys.jwk import parse_key, parse_key_file
from verifier.tools import explain

from .running_app import MAIN, Request, RunningApp, configure
from .test_hostile import ROWS
from .tokens import SECRET, Token, b64, ordinary_claims, ordinary_header, public_jwk, sign

SHORTEST = 16  # characters: a shorter part is no secret, and may occur anywhere


@contextmanager
def full_log() -> Iterator[io.StringIO]:
    """All that is logged at any level, with arguments, traces and the causes of errors."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    handler.setFormatter(logging.Formatter("%(message)s %(args)r"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


@contextmanager
def stdout_in(file: Path) -> Iterator[None]:
    """What the process writes on stdout goes to ``file``."""
    stdout = os.dup(1)
    with file.open("wb") as to:
        os.dup2(to.fileno(), 1)
    yield
    os.dup2(stdout, 1)
    os.close(stdout)


class Traffic(NamedTuple):
    """The secrets that were sent, and all that came out."""

    secrets: dict[str, bytes]
    """By the row's name."""
    output: dict[str, bytes]
    """By where it came out."""
    sent: int


def secrets_of(token: bytes) -> set[bytes]:
    """The whole token, and its signature alone."""
    return {secret for secret in (token, token.rpartition(b".")[2]) if len(secret) >= SHORTEST}


def spaced_token(opening: bytes) -> bytes:
    """A valid token neither of whose parts begins as most do."""
    header, claims = (json.dumps(part).encode() for part in (ordinary_header("ed"), ordinary_claims("ed")))
    return Token("ed", header=opening + header[1:], claims=opening + claims[1:]).encode()


def misplaced(name: str, token: bytes) -> Iterator[tuple[str, Request, bytes]]:
    """A token wherever a client may put one beside the Authorization header."""
    requests = {
        "in the path": Request(url=b"https://h/db/" + token),
        "in the path of a policy with rules": Request(path="/verify/api", url=b"https://h/db/" + token),
        "in the path, its dots encoded": Request(url=b"https://h/db/" + token.replace(b".", b"%2E")),
        "in the query": Request(path="/verify/api", url=b"https://h/db/?access_token=" + token),
        "as the host": Request(url=b"https://" + token + b"/"),
        "as the method": Request(method=token),
        "as the request id": Request(headers=((b"x-request-id", token),)),
        "as the address": Request(headers=((b"x-real-ip", token),)),
        "as the policy": Request(path="/verify/" + token.decode()),
    }
    return ((f"{name} {place}", request, token) for place, request in requests.items())


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """The whole hostile table, at log level DEBUG and with every decision audited."""
    folder = tmp_path_factory.mktemp("secrets")
    token = Token("ed").encode()
    rows = [
        *((case.name, case.request, case.token) for case in ROWS),
        *misplaced("token", token),
        *misplaced("token with white space", spaced_token(b"{ ")),
        *misplaced("token with a line break", spaced_token(b"{\n")),
        ("token as another token's kid", Request(), Token(header={"kid": token.decode()}).encode()),
        ("token as another token's iss", Request(), Token(claims={"iss": token.decode()}).encode()),
    ]
    app = RunningApp({**MAIN, "audit": "all"}, folder)
    with full_log() as log, stdout_in(folder / "audit"), app:
        answers = [app.ask(token, **vars(request)) for _, request, token in rows]
        metrics = app.exposition()
    output = {
        "log": log.getvalue().encode("utf-8", "backslashreplace"),
        "audit": (folder / "audit").read_bytes(),
        "metrics": metrics,
        "answers": b"\n".join(answer.body for answer in answers),
        "headers": b"\n".join(name + b": " + value for answer in answers for name, value in answer.headers),
    }
    return Traffic({name: secret for name, _, it in rows for secret in secrets_of(it or b"")}, output, len(rows))


@pytest.mark.parametrize("where", ["log", "audit", "metrics", "answers", "headers"])
def test_no_token_no_signature_and_no_configured_secret_comes_out(traffic: Traffic, where: str) -> None:
    secrets = {**traffic.secrets, "secret": SECRET, "base64": b64(SECRET), "hexadecimal": SECRET.hex().encode()}
    assert [name for name, secret in secrets.items() if secret in traffic.output[where]] == []


def test_each_decision_leaves_one_line_of_json(traffic: Traffic) -> None:
    lines = traffic.output["audit"].splitlines()
    assert [list(json.loads(line))[:4] for line in lines] == [["time", "event", "status", "reason"]] * traffic.sent


def test_no_audit_line_can_move_a_terminal_or_forge_another(traffic: Traffic) -> None:
    assert all(byte == 10 or 0x20 <= byte <= 0x7E for byte in traffic.output["audit"])


def test_no_label_holds_what_an_unauthenticated_client_sent(traffic: Traffic) -> None:
    words = (b"nope", b"unknown/", b"alice", b"nowhere", b"other.example", b"PROPFIND", b"forged")
    assert [word for word in words if word in traffic.output["metrics"]] == []


def test_metrics_have_no_more_series_than_reasons_policies_and_issuers_allow(traffic: Traffic) -> None:
    assert traffic.output["metrics"].count(b"m2m_verifier_decisions_total{") < 150


# --- What is configured -----------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """All ways to print an object."""
    return f"{value!r} {value} {vars(value) if hasattr(value, '__dict__') else ''}"


def test_a_configuration_does_not_show_its_secret(tmp_path: Path) -> None:
    assert b64(SECRET).decode() not in shown(configure(MAIN, tmp_path))


def test_keys_do_not_show_themselves() -> None:
    key = parse_key(public_jwk("internal"), symmetric=True)
    assert not any(form in shown(key) + shown([key]) for form in (b64(SECRET).decode(), repr(SECRET), SECRET.decode()))


SHORT = "c2VjcmV0LXZhbHVlLTE"
# fmt: off
BROKEN_KEYS: dict[str, Any] = {
    "k of the wrong type": {"kty": "oct", "kid": "1", "k": [b64(SECRET).decode()]},
    "k too short": {"kty": "oct", "kid": "1", "k": SHORT},
    "k with white space": {"kty": "oct", "kid": "1", "k": f" {SHORT} !"},
    "kid of the wrong type": {"kty": "oct", "kid": 1, "k": b64(SECRET).decode()},
    "a truncated private RSA key": {"kty": "RSA", "kid": "1", "n": "AQAB", "e": "AQAB", "d": SHORT},
    "for another use": {"kty": "oct", "use": "enc", "k": b64(SECRET).decode()},
}
BROKEN_FILES = {
    "truncated": b'{"keys": [{"kty": "oct", "k": "%s"',
    "not JSON": b"k: %s",
    "no keys": b'{"k": "%s"}',
    "not UTF-8": b'{"k": "%s\xff"}',
    "k twice": b'{"keys": [{"kty": "oct", "k": "%s", "k": "%s"}]}',
}
# fmt: on


@pytest.mark.parametrize("jwk", BROKEN_KEYS.values(), ids=BROKEN_KEYS)
def test_an_error_about_a_key_does_not_quote_it(jwk: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValueError, match=r".") as caught:
        parse_key_file(json.dumps({"keys": [jwk]}).encode())
    output = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value)
    assert not any(secret in output for secret in (SHORT, b64(SECRET).decode(), "secret-value"))


def refused_configuration(folder: Path, text: bytes) -> str:
    """The error of a configuration file, with its causes."""
    (folder / "m2m.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load(folder / "m2m.yaml", Environment())
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value)


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_an_error_about_a_key_file_does_not_quote_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(content.replace(b"%s", b64(SECRET)))
    issuer = b"{name: i, issuer: 'https://i.example', audience: any, algorithms: [HS256], jwks_file: keys.json}"
    assert b64(SECRET).decode() not in refused_configuration(tmp_path, b"issuers: [" + issuer + b"]")


def test_an_error_about_a_file_that_is_a_token_does_not_quote_it(tmp_path: Path) -> None:
    token = Token().encode()
    assert token.decode() not in refused_configuration(tmp_path, b"issuers: " + token)


# --- What explain prints ----------------------------------------------------------------------------------------------

# fmt: off
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
# fmt: on


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("token", EXPLAINED.values(), ids=EXPLAINED)
def test_explain_shows_neither_token_nor_signature_nor_controls(token: Token, as_json: bool, tmp_path: Path) -> None:
    internal = next(issuer for issuer in MAIN["issuers"] if issuer["name"] == "internal")  # its key is at hand
    config = configure({**MAIN, "issuers": [internal], "policies": {}, "roles": {}, "revoked": {}}, tmp_path)
    options = Namespace(json=as_json, policy=None, auth_url=None, method="GET", url="https://h/db")
    buffer = io.BytesIO()
    out = io.TextIOWrapper(buffer, "utf-8")  # strict, as a terminal's stream is
    encoded = token.encode()
    explain.run(config, options, encoded, out)
    out.flush()
    shown = buffer.getvalue().decode()
    assert not any(secret.decode() in shown for secret in secrets_of(encoded))
    assert all(char == "\n" or char.isprintable() for char in shown)
    assert not [line for line in shown.splitlines() if line.startswith("ok    everything")]
