"""Several processes that answer as one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.stage import Load, Serve, Wire, command_line, configuration, entry, eventually, request, statuses, total
from verifier.demo.issuer import Issuer


@pytest.fixture(scope="module")
def shared(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(configuration(entry(lab)), tmp_path_factory.mktemp("workers"), workers=2) as running:
        yield running


@pytest.fixture
def serve(shared: Serve) -> Serve:
    """Two workers that both answer: a test may kill them, but not their supervisor."""
    for _ in range(2):
        eventually(lambda: len(shared.workers()) == 2, "two workers run")
        for pid in shared.workers():
            with only(shared, pid):
                shared.ask()
    return shared


@contextlib.contextmanager
def only(serve: Serve, pid: int) -> Iterator[None]:
    """Requests go to this worker: the others are stopped."""
    others = [other for other in serve.workers() if other != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def send(serve: Serve, token: str | None, count: int) -> None:
    """Exactly so many requests."""
    statuses(serve.port, [request("/verify", token=token)] * count)


def decisions(serve: Serve) -> float:
    return serve.total("decisions_total")


def test_metrics_count_every_request_of_every_worker_once(serve: Serve, token: str) -> None:
    before = serve.metrics()
    for pid in serve.workers():
        with only(serve, pid):
            send(serve, token, 100)
            send(serve, None, 20)
    after = serve.metrics()

    def more(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert more("decisions_total", status="200", reason="ok", issuer="lab", policy="default") == 200
    assert more("decisions_total", reason="missing_token") == 40
    assert more("client_decisions_total", client_id="etl", status="200") == 200
    assert more("decision_duration_seconds_count") == 240
    assert more("decision_duration_seconds_bucket", le="+Inf") == 240
    assert more("token_cache_requests_total") == 200
    assert more("token_cache_requests_total", result="miss") == 2  # the same token, once in each of them
    assert more("token_cache_entries") == 2
    for gauge in ("build_info", "config_last_reload_successful", "jwks_keys"):
        assert total(after, gauge) == 1, gauge


def test_a_killed_worker_is_replaced_and_what_was_scraped_stays_counted(serve: Serve, token: str) -> None:
    count = decisions(serve)
    for victim in serve.workers():
        with only(serve, victim):
            send(serve, token, 40)
        count += 40
        assert decisions(serve) == count
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(set(serve.workers()) - {victim}) == 2, "another worker runs")  # noqa: B023
        assert decisions(serve) == count


def test_counters_never_fall_while_workers_are_killed_under_load(serve: Serve, token: str) -> None:
    seen = [decisions(serve)]
    with Load(serve.port, token, threads=2, pause=0.002, path="/verify") as load:
        for _ in range(2):
            load.more(50)
            seen.append(decisions(serve))
            os.kill(serve.workers()[0], signal.SIGKILL)
            for _ in range(10):
                seen.append(decisions(serve))
                time.sleep(0.02)
            eventually(lambda: len(serve.workers()) == 2, "another worker runs")
        results = load.stop()
    seen.append(decisions(serve))
    assert seen == sorted(seen)
    assert 100 < seen[-1] - seen[0] <= sum(results.values())


def test_a_worker_that_dies_during_a_scrape_is_counted_once(serve: Serve, token: str) -> None:
    stopped, killed = serve.workers()
    with only(serve, killed):
        send(serve, token, 40)
    before = decisions(serve)
    scraped: list[float] = []
    scrape = threading.Thread(target=lambda: scraped.append(decisions(serve)))
    os.kill(stopped, signal.SIGSTOP)  # holds the scrape up for a second, so that the other dies in the middle of it
    try:
        scrape.start()
        time.sleep(0.3)
        os.kill(killed, signal.SIGKILL)
        scrape.join()
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert scraped == [before]
    assert decisions(serve) == before


def test_workers_end_when_their_supervisor_is_killed(lab: Issuer, tmp_path: Path) -> None:
    with Serve(configuration(entry(lab)), tmp_path, workers=2) as serve:
        workers = eventually(lambda: len(serve.workers()) == 2 and serve.workers(), "two workers run")
        os.kill(serve.process.pid, signal.SIGKILL)
        eventually(lambda: not any(map(command_line, workers)), "no worker is left")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", serve.port), 5).close()


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
def test_audit_lines_never_mix_and_are_all_written_at_the_end(
    lab: Issuer, token: str, tmp_path: Path, workers: int
) -> None:
    with Serve(configuration(entry(lab), audit="all"), tmp_path, workers=workers) as serve:

        def some(number: int) -> set[int]:
            found = set()
            with Wire(serve.port) as wire:
                for count in range(150):
                    path = f"/{number}/" + 'x\u00e9"\\' * (count * 5)  # up to and beyond what a pipe takes at once
                    url = f"http://api.example{path}".encode().decode("latin-1")
                    lines = f"X-Original-URL: {url}", f"X-Request-ID: {number}-{count}"
                    found.add(wire.ask(request("/verify", *lines, token=token)).status)
            return found

        with ThreadPoolExecutor(16) as threads:
            assert set().union(*threads.map(some, range(16))) == {200}
        assert serve.stop() == 0
        ids = [json.loads(line)["request_id"] for line in serve.output]
    assert sorted(ids) == sorted(f"{number}-{count}" for number in range(16) for count in range(150))


def test_a_worker_is_replaced_also_while_the_file_is_broken(lab: Issuer, token: str, tmp_path: Path) -> None:
    """It gets the last configuration that was good."""
    settings = configuration(entry(lab))
    with Serve(settings, tmp_path, workers=2) as serve:
        eventually(lambda: len(serve.workers()) == 2, "two workers run")
        serve.config.write_text("issuers: [")
        eventually(lambda: serve.total("config_reloads_total", result="failure") >= 1, "the broken file is refused")
        victim = serve.workers()[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(set(serve.workers()) - {victim}) == 2, "another worker runs")
        for pid in serve.workers():
            with only(serve, pid):
                assert serve.ask(token).status_code == 200


def test_all_workers_together_name_no_more_clients_than_one(serve: Serve, lab: Issuer) -> None:
    """Each worker names its first 1,000 clients."""
    tokens = [lab.mint(lab.machine_claims(f"client-{number}", [])) for number in range(1500)]
    for pid, own in zip(serve.workers(), (tokens[:750], tokens[750:]), strict=True):
        with only(serve, pid):
            assert set(statuses(serve.port, [request("/verify", token=token) for token in own])) == {200}
    counted = [value for (name, _), value in serve.metrics().items() if name == "m2m_verifier_client_decisions_total"]

    assert len(counted) <= 1001
    assert sum(counted) >= 1500
    assert serve.total("client_decisions_total", client_id="other") >= 499
