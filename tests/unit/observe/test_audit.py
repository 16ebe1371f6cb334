"""One JSON line for each decision: its fields, what it must not contain, and a reader that takes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.unit.support import NOW, audit_lines, make_principal, make_token
from tests.unit.support import observation as make_observation
from verifier.decision import Decision
from verifier.observe.audit import MAX_PENDING, MAX_PENDING_BYTES, MAX_TEXT, Audit, line
from verifier.observe.batch import Observation
from verifier.reasons import Reason
from verifier.request import AuthRequest

Pipe = tuple[BinaryIO, BinaryIO]
TOKEN = make_token(make_principal("read write", role="arn:role"))
ALLOWED = Decision(Reason.OK, "api", issuer="lab", token=TOKEN, cached=True)
DENIED = Decision(Reason.MISSING_TOKEN, "api")
SCOPE_CHALLENGE = Decision(Reason.INSUFFICIENT_SCOPE, scope_challenge=401)
WOULD_DENY = Decision(Reason.NO_ROLE, "api", report=True, issuer="lab", token=TOKEN)


def observation(decision: Decision = ALLOWED, *, now: float = NOW, **changes: Any) -> Observation:
    given: dict[str, Any] = {
        "policy": "api",
        "query": b"scope=read",
        "authorization": b"Bearer eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl",
        "method": "POST",
        "url": b"https://api.example:8443/db/users?password=hunter2",
        "request_id": "id-1",
        "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "remote_addr": "192.0.2.1",
    }
    return make_observation(now, AuthRequest(**(given | changes)), decision, 42e-6)


def entry(decision: Decision = ALLOWED, **changes: Any) -> dict[str, Any]:
    written = line(observation(decision, **changes))
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert written.isascii()
    found: dict[str, Any] = json.loads(written)
    return found


LINE = {
    "time": "2027-01-15T08:00:00.250000Z", "event": "allow", "status": 200, "reason": "ok", "policy": "api",
    "issuer": "lab", "client_id": "etl", "scope": "read write", "role": "arn:role", "jti": "token-1",
    "method": "POST", "host": "api.example:8443", "path": "/db/users", "request_id": "id-1",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "remote_addr": "192.0.2.1", "duration_us": 42, "cached": True,
}  # fmt: skip
NOBODY = dict.fromkeys(("issuer", "client_id", "scope", "role", "jti"), "")


def test_a_line_says_who_did_what() -> None:
    assert entry(now=NOW + 0.25) == LINE


@pytest.mark.parametrize("decision", [ALLOWED, DENIED, WOULD_DENY], ids=["allowed", "denied", "report mode"])
def test_a_line_has_the_fields_of_the_contract_and_no_other(decision: Decision) -> None:
    assert list(entry(decision)) == list(LINE)


@pytest.mark.parametrize("value", [b"", b"00-x", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"])
def test_without_a_valid_traceparent_the_trace_id_is_empty(value: bytes) -> None:
    assert entry(traceparent=value)["trace_id"] == ""


@pytest.mark.parametrize(
    ("decision", "event", "status", "reason", "further"),
    [
        pytest.param(DENIED, "deny", 401, "missing_token", {**NOBODY, "cached": False}, id="no token"),
        pytest.param(Decision(Reason.OK), "allow", 200, "ok", {**NOBODY, "cached": False}, id="no token is needed"),
        pytest.param(WOULD_DENY, "would_deny", 403, "no_role", {}, id="the real one in report mode"),
        pytest.param(replace(ALLOWED, report=True), "allow", 200, "ok", {}, id="the same in report mode"),
        pytest.param(SCOPE_CHALLENGE, "deny", 401, "insufficient_scope", {}, id="the status that was sent"),
        pytest.param(Decision(Reason.UNKNOWN_POLICY), "deny", 403, "unknown_policy", {"policy": ""}, id="no policy"),
    ],
)
def test_a_line_says_what_was_decided(
    decision: Decision, event: str, status: int, reason: str, further: dict[str, Any]
) -> None:
    assert entry(decision).items() >= {"event": event, "status": status, "reason": reason, **further}.items()


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        (b"https://h/a%20b;c?x=y", "h", "/a%20b;c"),
        (b"https://h", "h", ""),
        (b"https://h?x", "h", ""),
        (b"https://u:password@h/a#b", "h", "/a"),
        (b"", "", ""),
        (b"/a", "", ""),
        (b"https://h/\xff\n", "h", "/\\xff\n"),
        ("https://h/é".encode(), "h", "/é"),
    ],
)
def test_host_and_path_are_logged_as_sent_without_the_query(url: bytes, host: str, path: str) -> None:
    found = entry(url=url)

    assert (found["host"], found["path"]) == (host, path)


@pytest.mark.parametrize("name", ["method", "request_id", "remote_addr"])
@pytest.mark.parametrize(
    "value", ['"', "\\", "\n", "\x00", "\x7f", "é", "\u2028", '", "status": 200, "x": "'], ids=ascii
)
def test_what_a_client_chose_cannot_break_its_line(name: str, value: str) -> None:
    assert entry(**dict[str, Any]({name: value}))[name] == value


@pytest.mark.parametrize("jti", ['"}', "\n", "\ud800", "😀"], ids=ascii)
def test_an_unusual_jti_cannot_break_its_line(jti: str) -> None:
    assert entry(replace(ALLOWED, token=make_token(jti=jti)))["jti"] == jti


# --- what a line must not contain ---

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJldGwifQ.c2lnbmF0dXJlLXBhcnQ"


def test_what_surrounds_a_token_in_a_path_is_still_logged() -> None:
    assert entry(url=b"https://h/a/" + JWT.encode() + b"/b")["path"] == "/a/[token]/b"


@pytest.mark.parametrize("before", [0, MAX_TEXT - 50, MAX_TEXT - 1])
@pytest.mark.parametrize(
    "token",
    [
        pytest.param("eyJ" + "a" * 4000 + ".b.c", id="no dot before the cut"),
        pytest.param("ewog" + "a" * 4000 + ".b.c", id="white space after the brace"),
        pytest.param("ewog" + "a" * 20 + "." + "b" * 4000 + ".c", id="second part cut"),
        pytest.param("eyAi" + "a" * 20 + "%2E" + "b" * 20 + "%2e" + "c" * 4000, id="encoded dots"),
    ],
)
def test_a_token_that_begins_before_the_cut_is_masked(before: int, token: str) -> None:
    assert entry(request_id="-" * before + " " + token)["request_id"] == ("-" * before + " [token]")[:MAX_TEXT]


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_token_is_masked_wherever_the_text_is_cut(missing: int) -> None:
    """What follows the first token moves into the part that is logged."""
    first = "eyJ" + "a" * 1000
    cut_in_dot = "ewog".ljust(2 * MAX_TEXT - len(first) - 1 - missing, "b") + "%2Ecc%2Edd"

    assert entry(request_id=f"{first} {cut_in_dot}")["request_id"] == "[token] [token]"


@pytest.mark.parametrize("name", ["method", "request_id", "remote_addr"])
def test_what_a_client_chose_is_bounded(name: str) -> None:
    assert len(entry(**dict[str, Any]({name: "x" * 100_000}))[name]) == MAX_TEXT


def test_a_long_url_is_bounded() -> None:
    found = entry(url=b"https://" + b"h" * 9000 + b"/" + b"p" * 9000)

    assert (len(found["host"]), len(found["path"])) == (MAX_TEXT, MAX_TEXT)


# --- writing ---


def written(audit: Audit, pipe: Pipe) -> list[dict[str, Any]]:
    """What was written until its end."""
    audit.stop()
    pipe[1].close()
    return [json.loads(one) for one in pipe[0]]


@pytest.mark.parametrize(
    ("mode", "reasons"),
    [("all", ["ok", "missing_token", "no_role"]), ("denied", ["missing_token", "no_role"]), ("off", [])],
)
def test_the_mode_decides_which_decisions_are_written(pipe: Pipe, mode: str, reasons: list[str]) -> None:
    audit = Audit(mode, descriptor=pipe[1].fileno())
    audit.start()
    audit.observe([observation(decision) for decision in (ALLOWED, DENIED, WOULD_DENY)])

    assert [one["reason"] for one in written(audit, pipe)] == reasons


def test_lines_are_written_in_their_order_and_all_of_them_at_the_end(pipe: Pipe) -> None:
    audit = Audit("all", descriptor=pipe[1].fileno())
    audit.start()
    for number in range(100):
        audit.observe([observation(request_id=str(number))])

    assert [one["request_id"] for one in written(audit, pipe)] == [str(number) for number in range(100)]


def test_lines_are_written_while_it_runs(pipe: Pipe) -> None:
    audit = Audit("all", descriptor=pipe[1].fileno())
    audit.start()
    audit.observe([observation()])

    assert json.loads(pipe[0].readline())["request_id"] == "id-1"  # waits until it is there
    audit.stop()


def test_of_more_decisions_than_there_is_room_for_the_first_are_written_and_the_rest_counted(tmp_path: Path) -> None:
    dropped: list[int] = []
    further = [observation(request_id=str(number)) for number in range(3)]
    batches = [[observation(DENIED)] * (MAX_PENDING - 1), further, [observation()]]
    lines = audit_lines(tmp_path, batches, dropped.append)

    assert (len(lines), dropped) == (MAX_PENDING, [2, 1])
    assert json.loads(lines[-1])["request_id"] == "0"


def test_pending_lines_are_bounded_in_bytes_too(tmp_path: Path) -> None:
    dropped: list[int] = []
    emoji = "\U0001f600"
    longest = observation(DENIED, url=b"http://h/" + emoji.encode() * 2000, request_id=emoji * 2000)
    lines = audit_lines(tmp_path, [[longest] * 64] * 20, dropped.append)

    assert MAX_PENDING_BYTES - len(lines[0]) < sum(map(len, lines)) <= MAX_PENDING_BYTES
    assert sum(dropped) + len(lines) == 20 * 64


def test_a_reader_that_takes_nothing_blocks_neither_decisions_nor_the_end(pipe: Pipe) -> None:
    """Were it otherwise, this test would not end."""
    dropped: list[int] = []
    audit = Audit("all", descriptor=pipe[1].fileno(), on_drop=dropped.append)
    audit.start()
    for _ in range(MAX_PENDING + 5000):
        audit.observe([observation()])
    assert sum(dropped) > 0  # the widest pipe holds fewer than 5,000 lines
    audit.stop(patience=0.01)
    before = sum(dropped)
    pipe[0].close()  # ends the thread
    deadline = time.monotonic() + 30
    while sum(dropped) == before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert sum(dropped) > before  # the lines that the thread was writing are counted


def test_without_a_reader_lines_are_counted_and_one_warning_logged(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    dropped: list[int] = []
    pipe[0].close()
    audit = Audit("all", descriptor=pipe[1].fileno(), on_drop=dropped.append)
    audit.start()
    for count in range(1, 4):
        audit.observe([observation()])
        while len(dropped) < count:
            time.sleep(0.01)
    audit.stop()

    assert (dropped, len(caplog.messages)) == ([1, 1, 1], 1)


WORKER = """
import os, sys
from tests.unit.observe.test_audit import Audit, observation

output, lock, ready, name = sys.argv[1:]
audit = Audit("all", descriptor=int(output), lock=int(lock))
for _ in range(400):
    audit.observe([observation(request_id=name)])
os.write(int(ready), b".")
audit.start()
audit.stop(60)
"""


def test_workers_that_share_an_output_do_not_mix_their_lines() -> None:
    """Both have more to write than the pipe takes, and wait for a reader at the same time."""
    lock = os.memfd_create("lock")
    reader, writer = os.pipe()
    waiting, ready = os.pipe()
    shared = (writer, lock, ready)
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, *map(str, shared), name], pass_fds=shared)
        for name in ("one", "two")
    ]
    for descriptor in shared:
        os.close(descriptor)
    for _ in started:
        assert os.read(waiting, 1)
    time.sleep(0.3)  # long enough for both to reach the full pipe
    with open(reader, "rb") as lines:
        names = [json.loads(one)["request_id"] for one in lines]
    os.close(waiting)

    assert [worker.wait() for worker in started] == [0, 0]
    assert sorted(names) == ["one"] * 400 + ["two"] * 400
