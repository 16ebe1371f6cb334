"""The benchmark's pure pieces: what it signs, how it counts, what it prints. Nothing here is timed."""

from __future__ import annotations

import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from bench import plan, report, tokens
from bench.__main__ import arguments, names
from bench.check import metric
from bench.load import openloop, wrk
from bench.load.requests import direct_template, proxied_template, render
from bench.run import specs
from bench.servers import BenchError
from bench.sides import ours
from bench.sides.context import Context
from verifier.proxies import routes
from verifier.server.head import Head

EXPIRES = int(time.time()) + tokens.LIFETIME


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def signer(request: pytest.FixtureRequest) -> tokens.Signer:
    return tokens.Signer.generate(request.param)


def test_a_token_verifies_against_the_key_set_and_has_about_one_kilobyte(signer: tokens.Signer) -> None:
    token, *others = tokens.sign_range(signer, EXPIRES, range(20))
    key = jwt.PyJWKSet.from_dict(tokens.jwks(signer))[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=[signer.jwk()["alg"]], issuer=tokens.ISSUER)
    assert (claims["client_id"], claims["sub"]) == (tokens.client_id(0),) * 2
    assert claims["token_use"] == "access"
    assert tokens.TOKEN_BYTES - 4 <= len(token) <= tokens.TOKEN_BYTES
    assert len({token, *others}) == 20


def test_a_bad_signature_differs_in_nothing_else_and_junk_is_never_a_token(signer: tokens.Signer) -> None:
    good = tokens.sign_range(signer, EXPIRES, range(1))[0]
    bad = tokens.bad_signature(good)
    assert bad.rsplit(".", 1)[0] == good.rsplit(".", 1)[0]
    garbage = tokens.junk(signer.kid, random.Random(1))
    junk = [(next(garbage), jwt.InvalidTokenError) for _ in range(10)]
    for token, error in [(bad, jwt.InvalidSignatureError), *junk]:
        with pytest.raises(error):
            jwt.decode(token, jwt.PyJWK(signer.jwk()), algorithms=[signer.jwk()["alg"]])


def test_an_unknown_key_is_another_one_each_time() -> None:
    rng = random.Random(1)
    kids = {jwt.get_unverified_header(tokens.unknown_kid(rng, expires=EXPIRES))["kid"] for _ in range(10)}
    assert len(kids) == 10


def test_the_same_token_set_is_taken_up_again(tmp_path: Path) -> None:
    first = tokens.make_token_set(tmp_path, cold=30, distinct=40)
    assert tokens.make_token_set(tmp_path, cold=30, distinct=40) == first
    assert len(first.path("distinct").read_text().splitlines()) == 40
    assert not set(first.path("hot").read_text().split()) & set(first.path("cold").read_text().split())


def windows(target: str, *rates: float, load: str = "hot") -> list[dict[str, object]]:
    return [{"round": number, "load": load, "target": target, "rps": rate} for number, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("ours_rates", "envoy_rates", "found"),
    [
        # The machine was half as fast in the second round: both were slow, and the ratio does not see it.
        ((1000, 500, 1200), (500, 250, 400), report.Ratio(median=2.0, low=2.0, high=3.0, rounds=3)),
        ((1000, 500), (500,), report.Ratio(median=2.0, low=2.0, high=2.0, rounds=1)),
        ((1000,), (), None),
    ],
    ids=["each round by itself", "a round that one side lacks", "no other side"],
)
def test_a_ratio_is_taken_within_each_round_that_both_have(
    ours_rates: tuple[float, ...], envoy_rates: tuple[float, ...], found: report.Ratio | None
) -> None:
    measured = windows("ours", *ours_rates) + windows("envoy", *envoy_rates)
    assert report.ratio(measured, "hot", "ours", "envoy") == found


def test_medians_are_taken_of_each_group() -> None:
    found = report.medians(windows("ours", 1, 2, 9) + windows("envoy", 5), ("target",), ("rps",))
    assert found == {("ours",): {"rps": 2}, ("envoy",): {"rps": 5}}


def test_a_number_has_three_digits() -> None:
    shown = [report.number(value) for value in (12345.6, 123.45, 12.345, 1.2345, 0.0)]
    assert shown == ["12,346", "123", "12.3", "1.23", "0.00"]


def test_the_report_replaces_what_is_between_the_markers_of_the_document() -> None:
    document = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.insert(document, "new") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.insert((Path(__file__).parents[2] / "docs" / "performance.md").read_text(), "new")
    with pytest.raises(ValueError, match="no <!-- bench:begin"):
        report.insert("nothing", "new")


def test_every_part_of_the_results_is_rendered() -> None:
    timed = {"p50_us": 100.0, "p99_us": 2000.0, "max_us": 3000.0}
    window = {"round": 0, "load": "hot", "cpu_us": 9.0, "rss_mib": 50.0, "load_busy": 0.95, "audit_dropped": 0, **timed}
    fixed = {"round": 0, "load": "hot", "rate": 500, "target": "ours", "p999_us": 1.0, "late_p99_us": 1.0, **timed}
    fair = {"target": "ours", "quiet_p99_us": 100.0, "paced_p99_us": 200.0, "flat_out_p99_us": 300.0}
    results = {
        "facts": {"processor": "one"},
        "windows": [
            window | {"target": "ours", "rps": 900.0}, window | {"target": "envoy", "rps": 300.0, "cpu_us": 18.0},
        ],
        "fixed": [fixed | {"unfinished": 0}],
        "memory": [{"tokens": 0, "rss_mib": 50.0}, {"tokens": 1000, "rss_mib": 51.0}],
        "stalls": [{"event": "reload", "happened": True, "late_max_us": 4.0, **timed}],
        "fairness": [fair | {"flat_out_rps": 5000.0}],
    }  # fmt: skip
    rendered = report.render(results)
    for row in (
        "| HOT | ours | Envoy jwt_authn | **3.00** | 3.00 to 3.00 | ≥ 2 | 2.00 |",
        "| ours ¹ | 900 | 0.10 | 2.00 | 9.00 | 50.0 |",
        "| HOT | 500 | ours | 0.10 | 2.00 |",
        "| 1,000 | 51.0 | 1.00 | 1,049 |",
        "| reload | 0.10 | 2.00 | 3.00 | 3.00 | 0.00 | 1 of 1 |",
        "| ours | 0.10 | 0.20 | 2.00 | 0.30 | 3.00 | 5,000 |",
    ):
        assert row in rendered


def test_before_and_after_are_compared_in_requests_and_in_cpu_where_there_is_an_older_version() -> None:
    ours, before = windows("ours", 120, 70, load="hot-new"), windows("ours-before", 100, 50, load="hot-new")
    for window, cpu_us in zip(ours + before, (50, 90, 100, 100), strict=True):
        window["cpu_us"] = cpu_us
    assert report.before_table(ours + before).splitlines()[-1] == (
        "| HOT, new connections | **1.30** | 1.20 to 1.40 |  | **0.70** | 0.50 to 0.90 | ≤ 0.75 |"
    )
    assert report.before_table(ours) == ""


def test_every_cell_and_comparison_names_what_exists() -> None:
    measured = {(load, name) for load, cell in plan.CELLS for name in cell.split()}
    for comparison in (*plan.COMPARISONS, *plan.BEFORE_AFTER):
        assert {(comparison.load, comparison.ours), (comparison.load, comparison.other)} <= measured
    assert {name for _, name in measured} <= plan.TARGETS.keys()
    assert {load for load, _ in measured} == plan.LOADS.keys()


def test_every_server_of_a_target_can_be_started(tmp_path: Path) -> None:
    known = specs(Context(tmp_path, tokens.make_token_set(tmp_path, cold=1, distinct=1)))
    assert {server for target in plan.TARGETS.values() for server in target.servers} <= known.keys()


def test_only_what_is_wanted_is_selected() -> None:
    chosen = plan.select(plan.CELLS, targets={"ours", "envoy"}, loads={"cold", "junk"})
    assert chosen == [("cold", ["ours", "envoy"]), ("junk", ["ours", "envoy"])]


def test_each_round_has_another_order() -> None:
    orders = ["".join(plan.rotated(["a", "b", "c", "d"], number)) for number in range(4)]
    assert orders == ["abcd", "bcda", "badc", "cbad"]


@pytest.mark.parametrize("names", ["ab", "xabyz"])
def test_no_side_always_runs_after_the_same_one(names: str) -> None:
    orders = [plan.rotated(list(names), number) for number in range(7)]
    assert 2 <= sum(order.index("a") < order.index("b") for order in orders) <= 5


@pytest.mark.parametrize("place", ["build/bench/venv/bin", ".venv/bin", "bin"])
def test_an_older_version_is_a_checkout_or_a_virtual_environment_that_runs_its_own_code(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match="has no m2m-verifier"):
        ours.command_of(tmp_path)
    command = tmp_path / place / "m2m-verifier"
    command.parent.mkdir(parents=True)
    command.touch()
    monkeypatch.setattr(ours, "code_of", lambda command: command)
    assert ours.command_of(tmp_path) == command
    monkeypatch.setattr(ours, "code_of", lambda command: tmp_path)
    with pytest.raises(BenchError, match="runs the code of this checkout"):
        ours.command_of(tmp_path)


def test_the_short_run_names_what_exists() -> None:
    options = arguments(["--short"])
    targets, loads = names(options.only, plan.TARGETS, "target"), names(options.load, plan.LOADS, "load")
    chosen = plan.select(plan.CELLS, targets=targets, loads=loads)
    assert {name for _, cell in chosen for name in cell} == set(options.only.split(","))


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(BenchError, match="no such load: warm"):
        names("hot, warm", plan.LOADS, "load")


RESULT = {
    "requests": 300, "duration_us": 2_000_000, "denied": 0, "socket_errors": 0, "p50_us": 10, "p99_us": 20,
    "max_us": 30, "cpu_s": 1.6,
}  # fmt: skip


def test_the_output_of_wrk_is_read() -> None:
    result = wrk.parse(f"PREPARED 0.100\nRunning 2s test\nRESULT {json.dumps(RESULT)}\n")
    assert (result.rps, result.busy) == (150.0, 0.75)


@pytest.mark.parametrize("change", [{"socket_errors": 1}, {"requests": 0}])
def test_a_lost_request_stops_the_run(change: dict[str, int]) -> None:
    with pytest.raises(BenchError, match="lost"):
        wrk.parse(f"PREPARED 0.1\nRESULT {json.dumps(RESULT | change)}\n")


DIALECTS = ["ours", "ours-rules", "ours-forward-auth", "ours-ext-authz"]
DIRECT = [direct_template(plan.TARGETS[name].path) for name in DIALECTS]


@pytest.mark.parametrize("template", [*DIRECT, direct_template("/", close=True), proxied_template()])
def test_a_request_carries_the_token_and_ends(template: str) -> None:
    request = render(template, "abc", 7)
    assert (b"\r\nAuthorization: Bearer abc\r\n" in request, b"@" in request) == (True, False)
    assert request.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("template", DIRECT, ids=DIALECTS)
def test_each_dialect_is_asked_about_the_same_request(template: str) -> None:
    head = Head(render(template, "abc", 7))
    asked = routes.plain_auth_request(head.method, head.target, head.headers, "")
    assert asked
    assert (asked.authorization, asked.method) == (b"Bearer abc", "GET")
    assert asked.url == f"https://api.lab.informationcart.com{plan.API_PATH}".encode()


def test_a_load_over_new_connections_differs_in_one_header_line() -> None:
    kept, close = (direct_template("/verify", close=close).splitlines() for close in (False, True))
    assert set(close) ^ set(kept) == {"Connection: close"}


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (HEAD + b"Content-Length: 2\r\n\r\n{}", 200), (HEAD + b"content-length: 2\r\n\r\n{", None),
        (CHUNKED + b"0\r\n\r\n", 200), (CHUNKED, None), (HEAD + b"Content-Le", None),
    ],
    ids=["whole", "body missing", "chunked", "last chunk missing", "head missing"],
)  # fmt: skip
def test_a_response_is_complete_or_not(received: bytes, status: int | None) -> None:
    assert openloop.complete_status(received) == status


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [openloop.percentile(list(range(1, 101)), share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert openloop.percentile([], 0.5) == 0


def test_the_open_loop_charges_a_stall_for_all_that_was_due() -> None:
    def answer_once() -> socket.socket:
        connection = listener.accept()[0]
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return connection

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as executor:
        listener.settimeout(60)
        answered = executor.submit(answer_once)
        port = listener.getsockname()[1]
        loop = openloop.OpenLoop(port=port, requests=[b"GET / HTTP/1.1\r\n\r\n"], connections=1, total=10)
        result = loop.run(rate=1000, seconds=0.01, grace=0.2)
        answered.result().close()
    assert (result.sent, result.unfinished) == (2, 9)
    assert result.p50_us > 150_000  # those that could never be sent waited from when they were due


def test_a_metric_that_is_not_there_yet_is_zero() -> None:
    exposition = 'requests_total{result="hit"} 12.0\n'
    assert metric(exposition, 'requests_total{result="hit"}') == 12
    assert metric(exposition, 'requests_total{result="miss"}') == 0
