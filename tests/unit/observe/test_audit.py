"""One JSON line for each decision: its fields, what it must not tell, and what a slow reader costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support import NOW, Clock, make_principal, make_token
from verifier.decision import Decision
from verifier.reasons import Reason
from verifier.observe.audit import MAX_TEXT, MAX_WAITING, MAX_WAITING_MIB, Audit, line
from verifier.policy.policies import Policy
from verifier.request import AuthRequest

FIELDS = [
    "time", "event", "status", "reason", "policy", "issuer", "client_id", "scope", "role", "jti", "method", "host",
    "path", "request_id", "remote_addr", "duration_us", "cached",
]  # fmt: skip
API = Policy("api")
ALLOWED = Decision(Reason.OK, API, "lab", make_token(make_principal("read write", role="arn:role")), cached=True)
DENIED = Decision(Reason.MISSING_TOKEN, API)


def asked(**changes: Any) -> AuthRequest:
    given: dict[str, Any] = {
        "policy": "api",
        "query": b"scope=read",
        "authorization": b"Bearer eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl",
        "method": "POST",
        "url": b"https://api.example:8443/db/users?password=hunter2",
        "request_id": "id-1",
        "remote_addr": "192.0.2.1",
    }
    return AuthRequest(**(given | changes))


def told(decision: Decision = ALLOWED, *, now: float = NOW, seconds: float = 42e-6, **changes: Any) -> dict[str, Any]:
    written = line(now, asked(**changes), decision, seconds)
    assert written.endswith("\n")
    assert written.count("\n") == 1
    assert written.isascii()
    found: dict[str, Any] = json.loads(written)
    return found


def test_a_line_has_the_fields_of_the_contract_and_no_other() -> None:
    assert list(told()) == FIELDS


def test_a_denial_has_the_same_fields() -> None:
    assert list(told(DENIED)) == FIELDS


def test_a_line_tells_who_did_what() -> None:
    assert told(now=NOW + 0.25) == {
        "time": "2027-01-15T08:00:00.250000Z", "event": "allow", "status": 200, "reason": "ok", "policy": "api",
        "issuer": "lab", "client_id": "etl", "scope": "read write", "role": "arn:role", "jti": "token-1",
        "method": "POST", "host": "api.example:8443", "path": "/db/users", "request_id": "id-1",
        "remote_addr": "192.0.2.1", "duration_us": 42, "cached": True,
    }  # fmt: skip


def test_a_denial_without_a_token_names_nobody() -> None:
    line = told(DENIED)

    assert [line[name] for name in ("issuer", "client_id", "scope", "role", "jti")] == [""] * 5
    assert (line["event"], line["status"], line["reason"], line["cached"]) == ("deny", 401, "missing_token", False)


def test_an_unknown_policy_is_not_named() -> None:
    assert told(Decision(Reason.UNKNOWN_POLICY, None), policy="chosen-by-a-stranger")["policy"] == ""


def test_report_mode_tells_the_real_decision() -> None:
    line = told(Decision(Reason.NO_ROLE, Policy("api", report=True), "lab", make_token()))

    assert (line["event"], line["status"], line["reason"]) == ("would_deny", 403, "no_role")


def test_report_mode_tells_what_it_allows_as_allowed() -> None:
    assert told(ALLOWED._replace(policy=Policy("api", report=True)))["event"] == "allow"


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
def test_host_and_path_are_told_as_sent_without_the_query(url: bytes, host: str, path: str) -> None:
    line = told(url=url)

    assert (line["host"], line["path"]) == (host, path)


@pytest.mark.parametrize("name", ["method", "request_id", "remote_addr"])
@pytest.mark.parametrize("value", ['"', "\\", "\n", "\x00", "é", "\u2028", '", "status": 200, "x": "'], ids=ascii)
def test_what_a_client_chose_cannot_break_its_line(name: str, value: str) -> None:
    assert told(**{name: value})[name] == value


@pytest.mark.parametrize("jti", ['"}', "\n", "\ud800", "😀"], ids=ascii)
def test_a_strange_jti_cannot_break_its_line(jti: str) -> None:
    assert told(ALLOWED._replace(token=make_token(jti=jti)))["jti"] == jti


# --- what a line must not tell ---

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJldGwifQ.c2lnbmF0dXJlLXBhcnQ"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"url": b"https://h/a?access_token=" + TOKEN.encode()}, id="query"),
        pytest.param({"url": b"https://h/" + TOKEN.encode() + b"/b"}, id="path"),
        pytest.param({"url": b"https://" + TOKEN.encode() + b"/b"}, id="host"),
        pytest.param({"request_id": TOKEN}, id="request id"),
        pytest.param({"request_id": "Bearer " + TOKEN}, id="request id with its scheme"),
        pytest.param({"remote_addr": TOKEN}, id="address"),
        pytest.param({"method": TOKEN}, id="method"),
        pytest.param({"query": b"x=" + TOKEN.encode()}, id="auth URL"),
        pytest.param({"authorization": b"Bearer " + TOKEN.encode()}, id="Authorization"),
        pytest.param({"authorization": b"Basic c2VjcmV0OnNlY3JldA=="}, id="Basic"),
    ],
)
def test_no_token_or_secret_is_in_any_line(changes: dict[str, Any]) -> None:
    written = line(NOW, asked(**changes), DENIED, 1e-5)

    for part in (*TOKEN.split("."), "c2VjcmV0OnNlY3JldA", "hunter2"):
        assert part not in written


def test_what_surrounds_a_token_in_a_path_is_still_told() -> None:
    assert told(url=b"https://h/a/" + TOKEN.encode() + b"/b")["path"] == "/a/[token]/b"


@pytest.mark.parametrize("name", ["method", "request_id", "remote_addr"])
def test_what_a_client_chose_is_bounded(name: str) -> None:
    assert len(told(**{name: "x" * 100_000})[name]) == MAX_TEXT


def test_a_long_url_is_bounded() -> None:
    found = told(url=b"https://" + b"h" * 9000 + b"/" + b"p" * 9000)

    assert (len(found["host"]), len(found["path"])) == (MAX_TEXT, MAX_TEXT)


# --- writing ---


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        os.close(descriptor)


def read_all(reader: int) -> list[dict[str, Any]]:
    os.set_blocking(reader, False)
    data = b""
    while True:
        try:
            data += os.read(reader, 1 << 20)
        except BlockingIOError:
            return [json.loads(part) for part in data.splitlines()]


def written(pipe: tuple[int, int], audit: Audit, *decisions: Decision) -> list[dict[str, Any]]:
    audit.start()
    audit.observe([(asked(), decision, 1e-5) for decision in decisions])
    audit.stop()
    return read_all(pipe[0])


@pytest.mark.parametrize(
    ("mode", "reasons"), [("all", ["ok", "missing_token"]), ("denied", ["missing_token"]), ("off", [])]
)
def test_the_mode_says_which_decisions_are_written(
    pipe: tuple[int, int], clock: Clock, mode: str, reasons: list[str]
) -> None:
    lines = written(pipe, Audit(mode, clock, descriptor=pipe[1]), ALLOWED, DENIED)

    assert [one["reason"] for one in lines] == reasons


def test_what_report_mode_would_deny_is_written_with_the_denied(pipe: tuple[int, int], clock: Clock) -> None:
    decision = Decision(Reason.NO_ROLE, Policy("api", report=True))

    assert len(written(pipe, Audit("denied", clock, descriptor=pipe[1]), decision)) == 1


def test_lines_are_written_in_their_order_and_all_of_them_at_the_end(pipe: tuple[int, int], clock: Clock) -> None:
    audit = Audit("all", clock, descriptor=pipe[1])
    audit.start()
    for number in range(100):
        audit.observe([(asked(request_id=str(number)), ALLOWED, 1e-5)])
    audit.stop()

    assert [one["request_id"] for one in read_all(pipe[0])] == [str(number) for number in range(100)]


def test_the_time_is_that_of_the_decision(pipe: tuple[int, int], clock: Clock) -> None:
    clock.now = 0

    assert written(pipe, Audit("all", clock, descriptor=pipe[1]), ALLOWED)[0]["time"] == "1970-01-01T00:00:00.000000Z"


def test_of_more_decisions_than_there_is_room_for_the_first_are_written_and_the_rest_counted(
    tmp_path: Path, clock: Clock
) -> None:
    with (tmp_path / "audit").open("wb") as file:  # a pipe would not hold them
        audit = Audit("all", clock, descriptor=file.fileno())
        audit.observe([(asked(), DENIED, 1e-5)] * (MAX_WAITING - 1))
        audit.observe([(asked(request_id=str(number)), ALLOWED, 1e-5) for number in range(3)])
        dropped = audit.dropped
        audit.start()
        audit.stop()
    lines = (tmp_path / "audit").read_bytes().splitlines()

    assert (len(lines), dropped) == (MAX_WAITING, 2)
    assert json.loads(lines[-1])["request_id"] == "0"


def test_of_lines_as_long_as_a_stranger_can_make_them_fewer_wait(tmp_path: Path, clock: Clock) -> None:
    longest = asked(url=b"http://h/" + "\U0001f600".encode() * 2000, request_id="\xe9" * 2000)
    turn = [(longest, DENIED, 1e-5)] * 10
    with (tmp_path / "audit").open("wb") as file:
        audit = Audit("all", clock, descriptor=file.fileno())
        for _ in range(MAX_WAITING // len(turn)):
            audit.observe(turn)
        dropped = audit.dropped
        audit.start()
        audit.stop()
    written = (tmp_path / "audit").read_bytes()
    bound = MAX_WAITING_MIB * 1024 * 1024

    assert bound <= len(written) < bound + len(turn) * 20_000  # the turn that meets the bound is still taken
    assert dropped + len(written.splitlines()) == MAX_WAITING


def within(seconds: float, what: Callable[[], bool]) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if what():
            return True
        time.sleep(0.005)
    return False


def test_lines_are_written_soon_without_being_asked(pipe: tuple[int, int], clock: Clock) -> None:
    audit = Audit("all", clock, descriptor=pipe[1])
    audit.start()
    audit.observe([(asked(), ALLOWED, 1e-5)])
    found: list[dict[str, Any]] = []

    assert within(5, lambda: bool(found.extend(read_all(pipe[0])) or found))
    audit.stop()


def test_a_reader_that_takes_nothing_delays_nobody_and_what_is_too_much_is_dropped_and_counted(clock: Clock) -> None:
    reader, writer = os.pipe()
    audit = Audit("all", clock, descriptor=writer)
    audit.start()
    start = time.monotonic()
    for _ in range(2 * MAX_WAITING + 500):
        audit.observe([(asked(), ALLOWED, 1e-5)])
    took, dropped = time.monotonic() - start, audit.dropped
    os.close(reader)
    audit.stop()
    os.close(writer)

    assert dropped >= 500
    assert took < 5


def test_stopping_gives_up_on_a_reader_that_takes_nothing(clock: Clock) -> None:
    reader, writer = os.pipe()
    audit = Audit("all", clock, descriptor=writer)
    audit.start()
    for _ in range(5000):  # more than the widest pipe holds
        audit.observe([(asked(), ALLOWED, 1e-5)])
    start = time.monotonic()
    audit.stop()
    took = time.monotonic() - start
    os.close(reader)  # frees the thread: nobody reads any more

    assert took < 4
    assert within(5, lambda: audit.dropped > 0)
    os.close(writer)


def test_a_reader_that_has_gone_is_counted_and_answering_goes_on(clock: Clock) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    audit = Audit("all", clock, descriptor=writer)
    audit.start()
    audit.observe([(asked(), ALLOWED, 1e-5)])
    audit.stop()
    os.close(writer)

    assert audit.dropped == 1


WORKER = """
import os
import sys
from tests.unit.support import Clock
from tests.unit.test_audit import ALLOWED, Audit, asked

output, lock, ready, name = sys.argv[1:]
audit = Audit("all", Clock(), descriptor=int(output), lock=int(lock))
for _ in range(400):
    audit.observe([(asked(request_id=name), ALLOWED, 1e-5)])
os.write(int(ready), b".")
audit.start()
audit.stop()
"""


def test_workers_that_share_an_output_do_not_mix_their_lines() -> None:
    """Both have more to write than the pipe takes, and wait for a reader at the same time."""
    lock = os.memfd_create("lock")
    reader, writer = os.pipe()
    told, ready = os.pipe()
    shared = (writer, lock, ready)
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, *map(str, shared), name], pass_fds=shared)
        for name in ("one", "two")
    ]
    for descriptor in shared:
        os.close(descriptor)
    for _ in started:
        assert os.read(told, 1)
    time.sleep(0.3)  # long enough for both to reach the full pipe
    with open(reader, "rb") as lines:
        names = [json.loads(one)["request_id"] for one in lines]
    os.close(told)

    assert [worker.wait() for worker in started] == [0, 0]
    assert sorted(names) == ["one"] * 400 + ["two"] * 400
