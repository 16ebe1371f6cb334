"""Child processes: the terminal's Ctrl-C does not reach them; each is stopped in order and its log is kept."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from verifier.demo.serving import free_port

READY_TIMEOUT = 20.0
"""Seconds that the verifier has to fetch its keys."""

_IGNORED = ("M2M_", "COGNITO_", "OAUTH_")  # environment variables: this verifier is configured by its file alone


class ProcessError(RuntimeError):
    """A process is missing, did not start, or died; the message says which and what its log says."""


class Child:
    """A running process whose standard error goes to a file; `output` shows its standard output on ours."""

    def __init__(
        self, command: Sequence[str], log: Path, *, output: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._shown = 0
        self._stopped = False
        with log.open("wb") as errors:
            # A session of its own: the terminal sends Ctrl-C to the demo alone, which stops its parts in order.
            self.process = subprocess.Popen(  # noqa: S603 - the command lines are ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=None if output else subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """The last lines of its standard error."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def new_lines(self) -> str:
        """The complete lines of its standard error that were written since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._shown)
            written = file.read()
        lines = written[: written.rfind(b"\n") + 1]
        self._shown += len(lines)
        return lines.decode(errors="replace")

    def wait_until(self, is_ready: Callable[[], bool], timeout: float, failure: str) -> None:
        """Wait at most `timeout` seconds. What `is_ready` raises stops the process.

        Raises:
            ProcessError: it died or was too slow; the text is `failure` and the last lines of its log.
        """
        deadline = time.monotonic() + timeout
        try:
            while not is_ready():
                if not self.alive or time.monotonic() > deadline:
                    raise ProcessError(f"{failure}\n{self.log}")
                time.sleep(0.02)
        except BaseException:
            self.stop(signal.SIGTERM, 10)
            raise

    def stop(self, how: signal.Signals, timeout: float) -> None:
        """Ask it to stop with a signal; after `timeout` seconds kill it and what it started."""
        if self._stopped:
            return
        self._stopped = True
        try:
            if self.alive:
                self.process.send_signal(how)
                self.process.wait(timeout)
                return
        except subprocess.TimeoutExpired:
            pass
        # It was too slow, or something else killed it: its own children may still run.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def status_of(client: httpx.Client, url: str) -> int:
    """The status of the answer; 0 while there is none."""
    with contextlib.suppress(httpx.TransportError):
        return client.get(url).status_code
    return 0


class Verifier:
    """`with Verifier(configuration, directory):` a real `m2m-verifier serve` is ready inside.

    Args:
        configuration: the contents of its YAML file, which is written to `directory`.
        audit: whether its audit lines go to this process's standard output.
        watch: called often while it starts; what it raises ends the start.

    Raises:
        ProcessError: it died, or was not ready within READY_TIMEOUT.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        directory: Path,
        *,
        audit: bool = False,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = directory / "verifier.yaml"
        self.log_file = self.config.with_suffix(".log")
        self.config.write_text(yaml.safe_dump(dict(configuration), sort_keys=False))
        self.port, self.metrics_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._audit = audit
        self._watch = watch

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "verifier", "serve", "--config", str(self.config), "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--metrics-port", str(self.metrics_port)]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_IGNORED) and not name.lower().endswith("_proxy")
        }
        self.child = Child(command, self.log_file, output=self._audit, environment=environment)
        with httpx.Client(trust_env=False, timeout=2) as client:

            def is_ready() -> bool:
                self._watch()
                return status_of(client, f"http://{self.address}/ready") == 200

            self.child.wait_until(is_ready, READY_TIMEOUT, "the verifier did not become ready")
        return self

    def stop(self) -> None:
        """Let it finish the requests under way (SIGTERM); kill it after 10 seconds."""
        self.child.stop(signal.SIGTERM, 10)

    def __exit__(self, *_: object) -> None:
        self.stop()
