"""How the verifier ends: with status 0, and without losing a request."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.e2e.stage import (
    PATIENCE,
    Load,
    Serve,
    Wire,
    command_line,
    configuration,
    entry,
    eventually,
    free_port,
    nginx,
    request,
    statuses,
)
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background, bind, port_of

WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])


@WORKERS
@pytest.mark.parametrize("keepalive", [False, True], ids=["new connections", "kept connections"])
def test_stopping_one_of_two_verifiers_under_load_loses_no_request(
    lab: Issuer, api: Background, token: str, tmp_path: Path, workers: int, keepalive: bool
) -> None:
    with ExitStack() as running:
        first, second = (
            running.enter_context(Serve(configuration(entry(lab)), tmp_path, workers=workers)) for _ in range(2)
        )
        front = running.enter_context(nginx(tmp_path, api, first, second, keepalive=keepalive))
        load = running.enter_context(Load(front.gateway.port, token, threads=8))
        load.more(300)
        assert all(serve.total("decisions_total") > 50 for serve in (first, second))
        first.process.send_signal(signal.SIGTERM)
        load.more(500)
        assert first.wait() == 0
        load.more(300)
        results = load.stop()
    print(f"{results.total()} requests while one of two verifiers stopped: {dict(results)}")
    assert set(results) == {"200"}


def interrupt(serve: Serve) -> None:
    """A terminal's Ctrl-C: it reaches all of the process group."""
    os.killpg(serve.process.pid, signal.SIGINT)


def terminate(serve: Serve) -> None:
    """What Kubernetes sends, to the first process alone."""
    serve.process.send_signal(signal.SIGTERM)


SIGNALS = pytest.mark.parametrize("send", [terminate, interrupt], ids=["SIGTERM", "Ctrl-C"])


@WORKERS
@SIGNALS
def test_a_signal_ends_it_with_status_0_and_leaves_nothing_behind(
    lab: Issuer, tmp_path: Path, workers: int, send: Callable[[Serve], None]
) -> None:
    with (
        Serve(configuration(entry(lab)), tmp_path, workers=workers) as serve,
        Wire(serve.port) as idle,
        Wire(serve.port) as half,
    ):
        half.send(request("/verify")[:-2])
        idle.ask(request("/verify"))
        pids = [serve.process.pid, *serve.workers()]
        send(serve)
        assert serve.wait() == 0
        assert "timeout graceful shutdown exceeded" not in serve.log, "a connection was waited for"
        assert not any(map(command_line, pids))
        assert "Traceback" not in serve.log


def wait_for_the_first_worker(serve: Serve) -> None:
    serve.wait_until_it_listens()
    eventually(serve.workers, "a worker runs", pause=0)  # the next one is being started


@pytest.mark.parametrize(
    ("workers", "wait"),
    [
        pytest.param(1, Serve.wait_until_it_listens, id="one process"),
        pytest.param(2, Serve.wait_until_it_listens, id="two workers"),
        pytest.param(4, wait_for_the_first_worker, id="while workers are being started"),
    ],
)
@SIGNALS
def test_a_signal_ends_it_with_status_0_from_the_moment_its_log_says_that_it_listens(
    lab: Issuer, tmp_path: Path, workers: int, wait: Callable[[Serve], None], send: Callable[[Serve], None]
) -> None:
    with Serve(configuration(entry(lab)), tmp_path, workers=workers, ready=None) as serve:
        wait(serve)
        send(serve)
        assert serve.wait() == 0
        assert "Traceback" not in serve.log


@WORKERS
def test_a_request_under_way_is_finished(tmp_path: Path, workers: int) -> None:
    with bind() as silent:
        issuer = Issuer(f"http://127.0.0.1:{port_of(silent)}")
        with Serve(configuration(entry(issuer)), tmp_path, workers=workers, ready=False) as serve:
            waiting = request("/verify", token=issuer.mint(issuer.machine_claims("etl", [])))
            with Wire(serve.port) as wire:
                wire.send(waiting)  # waits 2 s for keys that do not come
                time.sleep(0.3)
                serve.process.send_signal(signal.SIGTERM)
                answer = wire.read()
            assert answer is not None
            assert (answer.status, answer.headers["x-m2m-reason"]) == (503, "keys_unavailable")
            assert serve.wait() == 0


IN_THE_LOOPS_START = """
import os, signal, sys, time
set_wakeup_fd = signal.set_wakeup_fd
is_worker = "--multiprocessing-fork" in sys.orig_argv
def and_a_signal(*given, **named):
    os.kill(os.getppid() if is_worker else os.getpid(), signal.SIGTERM)
    time.sleep(1 if is_worker else 0)  # the supervisor signals its workers
    return set_wakeup_fd(*given, **named)
if os.environ["SIGNALLED"] in sys.orig_argv:
    signal.set_wakeup_fd = and_a_signal
"""


@pytest.mark.parametrize(
    ("workers", "signalled"),
    [
        pytest.param(1, "serve", id="one process"),
        pytest.param(2, "serve", id="the supervisor"),
        pytest.param(2, "--multiprocessing-fork", id="a worker"),
    ],
)
def test_a_signal_in_the_middle_of_the_loops_start_ends_it_with_status_0(
    lab: Issuer, tmp_path: Path, workers: int, signalled: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(IN_THE_LOOPS_START)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "SIGNALLED": signalled}
    with Serve(configuration(entry(lab)), tmp_path, workers=workers, environment=environment, ready=None) as serve:
        assert serve.wait() == 0
        assert "Traceback" not in serve.log


@WORKERS
@SIGNALS
def test_more_signals_do_not_change_how_it_ends(
    lab: Issuer, tmp_path: Path, workers: int, send: Callable[[Serve], None]
) -> None:
    with Serve(configuration(entry(lab)), tmp_path, workers=workers) as serve:
        while serve.process.poll() is None:
            send(serve)
            time.sleep(0.002)
        assert serve.wait() == 0
        assert "Traceback" not in serve.log


@SIGNALS
def test_a_signal_while_the_configuration_is_read_ends_it_at_once(
    tmp_path: Path, send: Callable[[Serve], None]
) -> None:
    never_written = tmp_path / "fifo"
    os.mkfifo(never_written)

    def writer() -> int | None:
        """The other end, once somebody reads."""
        with contextlib.suppress(OSError):
            return os.open(never_written, os.O_WRONLY | os.O_NONBLOCK)
        return None

    with Serve(never_written, tmp_path, ready=None) as serve:
        descriptor = eventually(writer, "it reads its configuration")

        def has_ended() -> bool:
            """Again, if need be: Python notices a signal that arrives just before a read when that read has ended."""
            send(serve)
            return serve.process.poll() is not None

        eventually(has_ended, "it ends")
        assert serve.wait() == 0
        assert serve.log == ""
        os.close(descriptor)


def test_a_client_that_sends_no_more_still_gets_every_answer(lab: Issuer, token: str, tmp_path: Path) -> None:
    fast = request("/verify", "X-Real-IP: 192.0.2.1", token=token)
    others = [request("/verify"), request("/verify", method="HEAD"), request("/health"), b"no HTTP at all\r\n\r\n"]
    with Serve(configuration(entry(lab)), tmp_path) as serve:
        for last in [fast, *others] * 20:
            with socket.create_connection(("127.0.0.1", serve.port), PATIENCE) as client, client.makefile("rb") as got:
                client.sendall(fast + last)
                client.shutdown(socket.SHUT_WR)
                assert got.read().count(b"HTTP/1.1 ") == 2


@WORKERS
def test_readers_of_audit_lines_and_log_that_take_nothing_block_neither_answers_nor_the_end(
    lab: Issuer, token: str, tmp_path: Path, workers: int
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with Serve(
        configuration(entry(lab), audit="all"), tmp_path, workers=workers, read_output=False,
        stderr=writer, port=free_port(), metrics_port=free_port(),
    ) as serve:  # fmt: skip
        # 400 bytes of each audit line: far more than a pipe holds.
        assert statuses(serve.port, [request("/verify", token=token)] * 1000) == [200] * 1000
        assert serve.total("decisions_total") == 1000
        assert serve.stop() == 0
    os.close(reader)
    os.close(writer)


def test_a_unix_socket_belongs_to_the_process_that_listens_on_it(lab: Issuer, tmp_path: Path) -> None:
    path, config = tmp_path / "verifier.sock", tmp_path / "verifier.yaml"
    config.write_text(yaml.safe_dump(configuration(entry(lab))))
    command = [sys.executable, "-P", "-m", "verifier", "serve", "--config", str(config), "--uds", str(path)]

    def start(stack: ExitStack) -> subprocess.Popen[str]:
        process = stack.enter_context(
            subprocess.Popen([*command, "--metrics-port", "0"], stderr=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        return process

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(str(path))
            client.sendall(request("/health"))
            return client.recv(15) == b"HTTP/1.1 200 OK"
        return False

    with ExitStack() as stack:
        first = start(stack)
        eventually(answers, "the first verifier answers")
        second = start(stack)
        assert str(path) in second.communicate()[1]
        assert (second.returncode, answers()) == (1, True)
        first.terminate()
        assert (first.wait(), path.exists()) == (0, False)


def test_a_taken_port_is_one_line_and_status_1(lab: Issuer, tmp_path: Path) -> None:
    with bind() as taken, Serve(configuration(entry(lab)), tmp_path, port=port_of(taken), ready=None) as serve:
        assert serve.wait() == 1
        (line,) = serve.log.splitlines()
        assert "in use" in line
