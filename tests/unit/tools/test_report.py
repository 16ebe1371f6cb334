"""The report on audit lines: what it counts, what it decides again, what it cannot read, and what it prints."""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.support import NOW, make_principal, make_token, observation
from verifier.config import Config, ConfigError
from verifier.decision import Decision
from verifier.observe.audit import line as audit_line
from verifier.reasons import Reason
from verifier.request import AuthRequest
from verifier.tools import report
from verifier.tools.report import lines as report_lines
from verifier.tools.report.lines import MAX_LINE, Progress, parse_line
from verifier.tools.report.replay import DECIDED_BY_POLICY, NOT_REPLAYED
from verifier.tools.report.tally import MAX_NAMED, OTHER, Change, Client, Tally

MakeConfig = Callable[..., Config]
PREFIX = "https://api.lab.informationcart.com/"
RULES = [
    {"path": "/open", "token": "none"},
    {"path": "/db/**", "methods": ["GET"], "scope": ["read"]},
    {"path": "/db/**", "methods": ["POST"], "any_scope": ["write", "admin"]},
]


ALLOWED = Decision(Reason.OK, "api", False, "lab", make_token(make_principal("read")))
REQUEST = AuthRequest("api", b"", None, "GET", b"https://api.example/db/a?x=1")
WRITTEN = json.loads(audit_line(observation(NOW, REQUEST, ALLOWED, 1e-4)))
ANONYMOUS = dict.fromkeys(("issuer", "client_id", "scope", "role", "jti"), "")


def line(reason: Reason = Reason.OK, *, report_mode: bool = False, **changes: str) -> bytes:
    """What the verifier writes of an allowed request or a refusal, with other values of some fields."""
    event = "allow" if reason is Reason.OK else "would_deny" if report_mode else "deny"
    return json.dumps(WRITTEN | {"reason": reason, "event": event} | changes, separators=(",", ":")).encode() + b"\n"


def at(second: int) -> str:
    """The time of a line."""
    return f"2027-01-15T08:00:0{second}.000000Z"


@pytest.fixture
def configure(lab: dict[str, Any], make_config: MakeConfig) -> MakeConfig:
    """A configuration with RULES, and with changes."""
    return lambda **changes: make_config(
        lab | {"scope_prefix": PREFIX, "policies": {"api": {"rules": RULES}}} | changes
    )


@pytest.fixture
def config(configure: MakeConfig) -> Config:
    return configure()


def run(given: bytes | Iterable[bytes], config: Config | None = None, **options: Any) -> tuple[int, str, str]:
    """Status, standard output and standard error."""
    defaults = {"files": ["-"], "without_scope": [], "revoke": [], "auth_url": [], "format": "table"}
    stdin = io.BytesIO(given if isinstance(given, bytes) else b"".join(given))
    out, err = io.StringIO(), io.StringIO()
    asked = argparse.Namespace(**(defaults | options))
    status = report.run(config, asked, io.BufferedReader(stdin), out, err)  # type: ignore[type-var, unused-ignore]
    return status, out.getvalue(), err.getvalue()


def found(given: Iterable[bytes], config: Config | None = None, **options: Any) -> dict[str, Any]:
    """The report as JSON."""
    status, out, err = run(given, config, format="json", **options)
    parsed: dict[str, Any] = json.loads(out)
    loses = parsed["replay"] and (parsed["replay"]["would_be_refused"] or parsed["replay"]["other_role"])
    assert (status, err) == (1 if loses else 0, "")
    return parsed


def changes(given: Iterable[bytes], config: Config, **options: Any) -> list[tuple[str, str]]:
    """The kind and cause of each change."""
    replay = found(given, config, **options)["replay"]
    kinds = "would_be_refused", "other_role", "would_be_allowed"
    return [(kind, one["cause"]) for kind in kinds for one in replay[kind]]


# --- counting


def test_each_client_has_its_requests_refusals_scopes_and_times() -> None:
    denied = line(Reason.INSUFFICIENT_SCOPE, time=at(1))
    clients = found([line(time=at(5)), line(scope="read write"), denied, line(client_id="b")])["clients"]

    assert [one["client_id"] for one in clients] == ["etl", "b"]
    assert clients[0] == {
        "issuer": "lab", "client_id": "etl", "requests": 3, "refused": 1, "refusals": {"insufficient_scope": 1},
        "would_deny": {}, "granted": ["read", "write"], "never_needed": None,
        "first_seen": at(0), "last_seen": at(5),
        "would_be_refused": None, "other_role": None, "would_be_allowed": None,
    }  # fmt: skip


def test_what_report_mode_let_through_is_no_refusal() -> None:
    (client,) = found([line(Reason.NO_ROLE, report_mode=True)])["clients"]

    assert (client["refused"], client["refusals"], client["would_deny"]) == (0, {}, {"no_role": 1})


def test_requests_without_a_verified_token_are_counted_together() -> None:
    clients = found([line(Reason.MISSING_TOKEN, **ANONYMOUS), line(Reason.EXPIRED, **ANONYMOUS), line()])["clients"]

    assert [(one["client_id"], one["requests"]) for one in clients] == [("", 2), ("etl", 1)]


@pytest.mark.parametrize(
    ("scope", "method", "never"),
    [
        ("read other", "GET", ["other"]),
        ("read write", "GET", ["write"]),
        ("write admin read", "POST", ["read"]),  # each alternative counts
        (f"{PREFIX}read {PREFIX}write", "GET", [f"{PREFIX}write"]),
        ("read by-role", "GET", []),
    ],
)
def test_a_scope_is_needed_by_a_rule_that_a_request_met_or_by_a_role(
    configure: MakeConfig, scope: str, method: str, never: list[str]
) -> None:
    config = configure(roles={"scopes": {"by-role": "arn:role"}})
    role = "arn:role" if "by-role" in scope else ""

    assert found([line(scope=scope, method=method, role=role)], config)["clients"][0]["never_needed"] == never


def tallied(config: Config, max_bytes: int, lines: Iterable[bytes]) -> Tally:
    options = argparse.Namespace(without_scope=[], revoke=[], auth_url=[])
    tally = Tally(report._replay(config, options), max_bytes=max_bytes)
    for one in lines:
        tally.add(parse_line(one))
    assert tally.is_full
    return tally


def test_clients_scopes_and_changes_beyond_the_bound_are_counted_together(config: Config) -> None:
    changed = ({"client_id": f"client-{number % 300}", "scope": f"scope-{number}"} for number in range(900))
    tally = tallied(config, 100_000, (line(policy="gone", **fields) for fields in changed))
    rows: Iterable[Client | Change]
    for rows in (tally.clients.values(), tally.changes.values()):
        assert 10 < len(rows) < 100
        assert (sum(one.requests for one in rows), max(one.requests for one in rows)) == (900, list(rows)[-1].requests)
        assert list(rows)[-1].client_id == OTHER


def test_memory_is_bounded_whatever_the_lines_say(config: Config) -> None:
    fields = "client_id", "scope", "role", "jti", "policy", "issuer", "path", "method"
    tracemalloc.start()
    tally = tallied(config, 1_000_000, (line(**dict.fromkeys(fields, f"{n}" * 8000)) for n in range(1000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert tally.requests == 1000
    assert peak < 4_000_000  # of about 200 MB


# --- the decision again


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.OK}))
def test_a_refusal_that_no_policy_gives_stays_as_it_is(config: Config, reason: Reason) -> None:
    """The lines are about a request that the policy allows."""
    replayed = reason in DECIDED_BY_POLICY
    given = line(reason) if replayed else line(reason, **ANONYMOUS)

    assert changes([given], config) == ([("would_be_allowed", reason)] if replayed else [])
    assert found([given], config)["replay"]["not_replayed"] == (reason in NOT_REPLAYED)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"scope": ""}, "insufficient_scope"),
        ({"method": "DELETE"}, "no_matching_rule"),
        ({"path": "/elsewhere"}, "no_matching_rule"),
        ({"path": "/db/%2f"}, "ambiguous_path"),
        ({"host": "", "path": "", "method": ""}, "bad_auth_request"),
        ({"policy": "gone"}, "unknown_policy"),
        ({"issuer": "gone"}, "unknown_issuer"),
        ({"client_id": "unlisted"}, "client_not_allowed"),
        ({"client_id": "revoked"}, "revoked"),
        ({"jti": "revoked"}, "revoked"),
        ({"scope": " ".join(["read", *(f"scope-{n}" * 9 for n in range(50))])}, "headers_too_large"),
        (ANONYMOUS, "missing_token"),
    ],
    ids=str,
)
def test_what_passed_and_would_not_pass_now_is_named_with_its_reason(
    lab: dict[str, Any], configure: MakeConfig, given: dict[str, str], cause: str
) -> None:
    lab["issuers"][0]["clients"] = ["etl", "revoked"]
    config = configure(revoked={"clients": ["revoked"], "tokens": ["revoked"]})

    assert changes([line(**given)], config) == [("would_be_refused", cause)]


def test_a_change_names_client_policy_requests_last_time_and_a_few_examples(config: Config) -> None:
    lines = [line(scope="", time=at(n), path=f"/db/{n % 7}") for n in range(9)]
    (change,) = found(lines, config)["replay"]["would_be_refused"]

    assert change == {
        "issuer": "lab", "client_id": "etl", "policy": "api", "cause": "insufficient_scope", "requests": 9,
        "last_seen": at(8),
        "examples": [f"GET api.example/db/{n}" for n in range(MAX_NAMED)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        (line(), []),
        (line(Reason.INSUFFICIENT_SCOPE, scope="", report_mode=True), ["would_be_refused"]),
        (line(Reason.MISSING_TOKEN, path="/open", **ANONYMOUS), ["would_be_allowed"]),
        (line(Reason.EXPIRED, path="/open", **ANONYMOUS), ["would_be_allowed"]),
        (line(path="/open", **ANONYMOUS), []),
        (line(role="arn:old"), ["other_role"]),
    ],
    ids=["same", "report mode ends", "no token needed", "no valid token needed", "still open", "role"],
)
def test_a_change_is_what_nginx_or_the_api_would_notice(config: Config, given: bytes, kinds: list[str]) -> None:
    assert [kind for kind, _ in changes([given], config)] == kinds


def test_a_policy_in_report_mode_refuses_nothing(configure: MakeConfig) -> None:
    config = configure(policies={"api": {"rules": RULES, "mode": "report"}})

    assert changes([line(scope="")], config) == []
    assert changes([line(Reason.INSUFFICIENT_SCOPE, scope="")], config) == [("would_be_allowed", "insufficient_scope")]


@pytest.mark.parametrize(
    ("scope", "options", "refused"),
    [
        ("read", {"without_scope": ["read"]}, True),
        (f"{PREFIX}read", {"without_scope": ["read"]}, True),
        (f"{PREFIX}read", {"without_scope": [f"{PREFIX}read"]}, True),
        (f"{PREFIX}read read", {"without_scope": [f"{PREFIX}read"]}, False),
        ("read write", {"without_scope": ["write", "admin"]}, False),
        ("read", {"revoke": ["etl"]}, True),
        ("read", {"revoke": ["lab/etl"]}, True),
        ("read", {"revoke": ["other"]}, False),
        ("read", {"auth_url": ["/verify/api?scope=admin"]}, True),
        ("read", {"auth_url": ["http://m2m:8000/verify/api?client=etl"]}, False),
        ("read", {"auth_url": ["/verify?client=other"]}, False),  # of another policy
    ],
    ids=str,
)
def test_a_scope_that_goes_a_client_that_is_revoked_and_an_auth_url_count(
    config: Config, scope: str, options: dict[str, Any], refused: bool
) -> None:
    assert bool(changes([line(scope=scope)], config, **options)) is refused


def test_a_parameter_of_an_auth_url_makes_a_scope_needed(config: Config) -> None:
    given = [line(scope="read audit")]

    assert found(given, config)["clients"][0]["never_needed"] == ["audit"]
    assert found(given, config, auth_url=["/verify/api?scope=audit"])["clients"][0]["never_needed"] == []


@pytest.mark.parametrize("option", [{"without_scope": ["wirte"]}, {"revoke": ["elt"]}])
def test_a_scope_or_client_that_no_line_has_is_named(config: Config, option: dict[str, list[str]]) -> None:
    ((name,),) = option.values()

    assert any(
        f"No replayed line has the {kind} {name}." in found([line()], config, **option)["limits"]
        for kind in ("scope", "client")
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"auth_url": ["/verfy/api"]}, "must be /verify"),
        ({"auth_url": ["/verify/none"]}, "not configured"),
        ({"auth_url": ["/verify/api?scop=a"]}, "not understood"),
        ({"auth_url": ["/verify/api?scope=a", "/verify/api?scope=b"]}, "named twice"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(config: Config, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run([line()], config, **options)


@pytest.mark.parametrize("option", ["without_scope", "revoke", "auth_url"])
def test_what_replays_needs_a_configuration(option: str) -> None:
    with pytest.raises(ConfigError, match="--config"):
        run([line()], **{option: ["/verify"]})


# --- reading


BROKEN = [
    b"INFO listening on 0.0.0.0:8000\n", b"{\n", b"{}\n", b"[1]\n", b'"text"\n', b"null\n", b"\xff\xfe\n",
    b'{"a":' * 9999 + b"\n", line()[:-9] + b"\n", line().replace(b'"ok"', b'"fine"'),
    line().replace(b'"allow"', b'"deny"'),
    line().replace(b'"allow"', b'["allow"]'), line().replace(b'"lab"', b'{"a":1}'), line().replace(b'"etl"', b"null"),
    line().replace(b'"2027', b'"27'), line(path="/" + "p" * MAX_LINE),
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda value: repr(value[:24]))
def test_a_line_that_is_no_audit_line_is_counted_and_named_with_its_number(broken: bytes) -> None:
    parsed = found([line(), b"\n", broken, line()])

    assert (parsed["requests"], parsed["broken_lines"]) == (2, 1)
    assert "standard input:3: " in parsed["limits"][0]


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 400))
def test_any_line_is_read_or_counted(piece: bytes, start: int, end: int) -> None:
    status, out, _ = run([line(), (line()[:start] + piece).replace(b"\n", b" ") + line()[end:].lstrip(b"\n"), b"\n"])

    assert (status, out.startswith(("1 requests, ", "2 requests, "))) == (0, True)


@pytest.mark.parametrize("before", ["[pod/m2m-verifier-0/m2m-verifier] ", "2027-01-15T08:00:00.1Z stdout F "])
def test_what_a_collector_writes_before_a_line_is_skipped(before: str) -> None:
    assert found([before.encode() + line()])["requests"] == 1


def test_a_line_with_half_of_a_surrogate_pair_is_read() -> None:
    assert found([line(jti="\ud800")])["requests"] == 1


def test_lines_are_read_whole_wherever_a_chunk_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(client_id=f"client-{n}") for n in range(50)]
    whole = found(lines)
    for size in (1, 7, 999):
        monkeypatch.setattr(report_lines, "CHUNK", size)
        assert found(b"".join(lines).rstrip(b"\n"))["clients"] == whole["clients"]  # type: ignore[arg-type]


def test_gzip_is_recognised_by_its_content_and_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_bytes(gzip.compress(line()) + gzip.compress(line(client_id="b")))
    (tmp_path / "audit.gz").write_bytes(line())
    files = [str(tmp_path / "audit.log"), "-", str(tmp_path / "audit.gz")]

    assert found([gzip.compress(line(client_id="c"))], files=files)["requests"] == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(line() * 99)[:-9], "the gzip file is truncated"),
        (gzip.compress(line() * 99)[:-8] + b"checksum", "the gzip file is damaged"),
        (gzip.compress(line())[:10] + b"\xff" * 40, "the gzip file is damaged"),
        (gzip.compress(line()) + b"rest", "the gzip file is damaged"),
        (None, "No such file or directory"),
        ("folder", "Is a directory"),
        (b"", "there is no audit line"),
        (b"issuers: []\n", "there is no audit line"),
    ],
    ids=["truncated", "checksum", "no deflate", "rest", "missing", "folder", "empty", "YAML"],
)
def test_what_cannot_be_read_to_its_end_gives_a_message_and_no_report(
    tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    path = tmp_path / "audit\x1b.log"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    files = [str(path)] if "audit line" in message else ["-", str(path)]
    status, out, err = run([line()], files=files)

    assert (status, out, message in err, "\x1b" in err) == (2, "", True, False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_only_on_a_terminal_only_after_a_moment_and_is_cleared() -> None:
    shown = []
    for out in (Terminal(), io.StringIO()):
        times = iter([0.0, 0.1, 0.6, 0.6, 0.65, 0.8, 0.8])
        progress = Progress(200, out, lambda times=times: next(times))
        for done in (10, 50, 60, 100):
            progress.show(done, done * 2)
        progress.end()
        shown.append(out.getvalue().split("\r"))

    assert [part.replace("\x1b[K", "") for part in shown[0]] == [
        "", "[#######                       ]  25%  100 lines", "[###############               ]  50%  200 lines", "",
    ]  # fmt: skip
    assert shown[1] == [""]


# --- writing


def test_the_table_shows_clients_changes_and_limits(config: Config) -> None:
    lines = [line(), line(Reason.NO_ROLE), line(scope="read x", client_id="b", path="/gone")]
    status, out, err = run(lines, config, revoke=["none"])

    assert (status, err) == (1, "")
    assert out.splitlines()[2:5] == [
        "CLIENT   REQUESTS  REFUSED  LAST SEEN             REFUSALS   GRANTED AND NEVER NEEDED",
        "lab/etl         2        1  2027-01-15T08:00:00Z  no_role 1  -",
        "lab/b           1        0  2027-01-15T08:00:00Z  -          read x",
    ]
    assert f"\nWith the configuration {config.path}, with the client none revoked:\n" in out
    assert (
        "\nWould be refused, but were let through: requests 1, clients 1\n"
        "CLIENT  POLICY  CAUSE             REQUESTS  LAST SEEN             FOR EXAMPLE\n"
        "lab/b   api     no_matching_rule         1  2027-01-15T08:00:00Z  GET api.example/gone\n"
    ) in out
    assert "\n- Lines do not contain the parameters of auth URLs" in out


def test_csv_has_a_row_for_each_client_and_the_limits_on_standard_error(config: Config) -> None:
    _, out, err = run([line(scope="read x y"), line(Reason.NO_ROLE)], config, format="csv")
    (row,) = csv.DictReader(io.StringIO(out))

    expected = {"client_id": "etl", "refusals": "no_role=1", "never_needed": "x y", "would_be_allowed": "1"}
    assert row | expected == row
    assert "parameters of auth URLs" in err


@pytest.mark.parametrize("first", "=+-@")
def test_no_cell_of_csv_is_a_formula_to_a_spreadsheet(config: Config, first: str) -> None:
    _, out, _ = run([line(client_id=f"{first}1+1", scope=f"{first}2+2")], config, format="csv")
    (row,) = csv.DictReader(io.StringIO(out))

    assert (row["client_id"], row["granted"], row["requests"]) == (f"'{first}1+1", f"'{first}2+2", "1")


def test_a_long_name_does_not_make_the_table_wide() -> None:
    lines = [line(client_id=f"c{number}") for number in range(9)]
    _, out, _ = run([*lines, line(client_id="c" * 12_000)])

    assert len(out) < 20_000


@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_no_control_character_of_a_line_is_printed(config: Config, format: str) -> None:
    hostile = "\x1b[31m\x00\x07\x7f\x9b\u202e\r"
    lines = [line(method=hostile, host=hostile, path=f"/{hostile}"), line(scope=f"read a{hostile}")]
    lines += [line(client_id=hostile), line(policy=hostile), line(time=at(0).replace("2027-", "\x1b[31m"))]
    for configured in (config, None):
        _, out, err = run(lines, configured, format=format)
        assert [char for char in out + err if not (char == "\n" or " " <= char <= "~")] == []
