"""What the end-to-end tests use: a real `serve`, raw clients, and issuers that can fail."""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Nginx
from verifier.demo.serving import Background
from verifier.demo.serving import free_port as free_port  # many tests import it from here

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

PATIENCE = 60.0  # seconds that anything may take on a busy machine


def eventually(holds: Callable[[], Any], what: str, seconds: float = PATIENCE, *, pause: float = 0.02) -> Any:
    """Wait until ``holds`` returns something true, and return that. Fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)


class Serve:
    """`with Serve(configuration, directory):` a real `m2m-verifier serve` answers inside, and has ended after it.

    ``ready`` False: it need not be ready; None: it has been started, nothing more. Its standard output goes to a pipe
    that is read all the time, as a container's is, into ``output``; ``read_output`` False: it is not read. ``stderr``
    is a descriptor for its log instead of a file; both ports have to be given with it.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any] | Path,
        directory: Path,
        *,
        workers: int = 1,
        ready: bool | None = True,
        environment: Mapping[str, str] | None = None,
        read_output: bool = True,
        port: int = 0,
        metrics_port: int = 0,
        stderr: int | None = None,
    ) -> None:
        self.port, self.metrics_port = port, metrics_port  # 0: any free one, which the log names
        folder = Path(tempfile.mkdtemp(prefix="serve-", dir=directory))
        if isinstance(configuration, Path):
            self.config = configuration
        else:
            self.config = folder / "verifier.yaml"
            self.write(configuration)
        self._log = folder / "stderr"
        self._workers = workers
        self._ready = ready
        self._environment = dict(environment or {})
        self._read_output = read_output
        self._stderr = stderr
        self.output: list[bytes] = []

    def write(self, configuration: Mapping[str, Any] | str) -> None:
        """Replace the configuration file in one step."""
        text = configuration if isinstance(configuration, str) else yaml.safe_dump(dict(configuration), sort_keys=False)
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "verifier", "serve", "--config", str(self.config), "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--metrics-port", str(self.metrics_port)]
        command += ["--workers", str(self._workers)]
        own = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
        with self._log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=self._stderr or errors,
                env=own | self._environment,
                start_new_session=True,
            )
        assert self.process.stdout
        self._reader = threading.Thread(target=self.output.extend, args=(self.process.stdout,), daemon=True)
        if self._read_output:
            self._reader.start()
        try:
            if self._ready is not None:
                self.wait_until_up()
        except BaseException:
            self._kill()
            raise
        return self

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"

    def wait_until_it_listens(self) -> None:
        """Until its log says so, and on which ports."""
        found = self._until(lambda: _LISTENING.search(self.log), "it listens")
        self.port, self.metrics_port = map(int, found.groups())

    def wait_until_up(self) -> None:
        """Until it answers, and is ready where that was asked for."""
        if not self.port:
            self.wait_until_it_listens()
        path = "/ready" if self._ready else "/health"
        self._until(lambda: self._answers(path), f"the verifier answers {path} with 200")

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return _get(self.url + path).status_code == 200
        return False

    def _until(self, holds: Callable[[], Any], what: str) -> Any:
        def alive_and_holds() -> Any:
            assert self.process.poll() is None, f"the verifier ended with {self.process.returncode}:\n{self.log}"
            return holds()

        return eventually(alive_and_holds, what)

    def stop(self) -> int:
        """Send SIGTERM and wait. The exit status."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit status, once it has ended."""
        status = self.process.wait(PATIENCE)
        self._join_reader()
        return status

    def _join_reader(self) -> None:
        if self._read_output:
            self._reader.join(PATIENCE)

    def _kill(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._join_reader()
        assert self.process.stdout
        self.process.stdout.close()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(PATIENCE)
        self._kill()

    @property
    def log(self) -> str:
        """Its standard error."""
        return self._log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """Process ids of the workers, in the order of their start."""
        return [pid for pid in children(self.process.pid) if "spawn_main" in command_line(pid)]

    def ask(self, token: str | None = None, path: str = "/verify", **headers: str) -> httpx.Response:
        """One subrequest, straight to the verifier."""
        url = headers.pop("url", "http://api.example/db/x")
        sent = {"X-Original-URL": url, "X-Original-Method": headers.pop("method", "GET"), **headers}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return _get(self.url + path, sent)

    def metrics(self) -> Samples:
        """One scrape."""
        answer = _get(f"http://127.0.0.1:{self.metrics_port}/metrics")
        assert answer.status_code == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of ``name`` that carry ``labels``."""
        return total(self.metrics(), name, **labels)


_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+), metrics on 127\.0\.0\.1:(\d+)\n")
# A verifier under test is configured by its file alone.
_FOREIGN = re.compile(r"(M2M_|COGNITO_|OAUTH_)|.*_proxy$", re.IGNORECASE)


def _get(url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """On a connection of its own, as nginx makes one for each request by default."""
    return httpx.get(url, headers=headers, trust_env=False, verify=False, timeout=PATIENCE)


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all series of ``m2m_verifier_`` + ``name`` that carry ``labels``."""
    wanted = set(labels.items())
    full = f"m2m_verifier_{name}"
    return sum(value for (sample, given), value in samples.items() if sample == full and wanted <= set(given))


def children(pid: int) -> list[int]:
    """Process ids of the running children of ``pid``."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, listed.read_text().split())
    return found


def command_line(pid: int) -> str:
    """The arguments of a process, NUL after each; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def resident(pid: int, kind: str = "VmRSS") -> int:
    """Resident memory of a process, in KiB; ``VmHWM``: the largest that it ever was."""
    found = re.search(kind + r":\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


class Api:
    """The API behind nginx: answers anything with what reached it, headers in order and the body.

    It accepts a WebSocket, and says in the header `X-Seen` what reached it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        if scope["type"] == "websocket":
            await receive()
            seen = json.dumps({"headers": headers}).encode()
            await send({"type": "websocket.accept", "headers": [(b"x-seen", seen)]})
            await receive()
            return
        body = await Request(scope, receive).body()
        target = scope["raw_path"].decode("latin-1")
        answer = {"method": scope["method"], "target": target, "headers": headers, "body": body.decode("latin-1")}
        await JSONResponse(answer)(scope, receive, send)


@dataclass
class Answer:
    """One HTTP answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def seen(self, name: str) -> list[str]:
        """Values of a header that reached the API."""
        return [value for header, value in self.json["headers"] if header == name.lower()]

    @property
    def json(self) -> Any:
        """What Api said."""
        return json.loads(self.body)


class Wire:
    """One TCP connection on which a test sends its own bytes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send as it is."""
        self._socket.sendall(data)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Send a request, or nothing, and read the next answer."""
        self.send(data)
        answer = self.read(method)
        assert answer is not None, "the connection was closed without an answer"
        return answer

    def rest(self) -> bytes:
        """All that comes until the other side closes."""
        return bytes(self._file.read())

    def read(self, method: str = "GET") -> Answer | None:
        """The next answer, None where the other side has closed."""
        first = self._file.readline()
        if not first:
            return None
        headers: dict[str, str] = {}
        while (line := self._file.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(first.split()[1])
        if method == "HEAD" or status in (100, 101, 204, 304):
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self._file.readline(), 16):
                body += self._file.read(size)
                self._file.readline()
            self._file.readline()
        elif "content-length" in headers:
            body = self._file.read(int(headers["content-length"]))
        else:
            body = self._file.read()
        return Answer(status, headers, body)


def exchange(port: int, data: bytes, method: str = "GET") -> Answer:
    """Send the bytes on a connection of their own, and read one answer."""
    with Wire(port) as wire:
        return wire.ask(data, method)


def statuses(port: int, requests: Iterable[bytes], together: int = 50) -> list[int]:
    """Send the requests, so many together over each connection. The statuses of their answers."""
    left, found = iter(requests), []
    while batch := list(itertools.islice(left, together)):
        with Wire(port) as wire:
            wire.send(b"".join(batch))
            found += [wire.ask(b"").status for _ in batch]
    return found


def request(
    target: str = "/db/x",
    *lines: str,
    method: str = "GET",
    token: str | None = None,
    version: str = "1.1",
    host: str | None = "api.example",
) -> bytes:
    """The head of a request, byte for byte; ``lines`` are further header lines."""
    head = [f"{method} {target} HTTP/{version}"]
    head += [f"Host: {host}"] if host is not None else []
    head += [f"Authorization: Bearer {token}"] if token is not None else []
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1")


@dataclass
class Load:
    """`with Load(port, token):` threads ask inside, each on a connection that it keeps, ``pause`` seconds in between.

    ``results`` counts statuses, and errors by their name: each request sent is in it once.
    """

    port: int
    token: str
    threads: int = 4
    pause: float = 0.0
    path: str = "/db/x"
    results: collections.Counter[str] = field(default_factory=collections.Counter)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running = [threading.Thread(target=self._ask) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> collections.Counter[str]:
        """Let each thread finish its request. What came of them all."""
        self._stop.set()
        for thread in self._running:
            thread.join()
        return self.results

    def more(self, count: int) -> None:
        """Wait until so many further requests were answered."""
        target = sum(self.results.values()) + count
        eventually(lambda: sum(self.results.values()) >= target, f"{count} more answers")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.token}"}
        while not self._stop.is_set():
            try:
                connection.request("GET", self.path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                result = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                result = repr(error)
                connection.close()
            with self._lock:
                self.results[result] += 1
            self._stop.wait(self.pause)
        connection.close()


def entry(issuer: Issuer, name: str = "lab", **more: Any) -> dict[str, Any]:
    """An issuer as the configuration names it."""
    return {"name": name, "profile": "cognito", "issuer": issuer.url, "jwks_url": issuer.jwks_url, **more}


def configuration(*issuers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A configuration file's content; no audit, unless asked for."""
    return {"issuers": list(issuers), "audit": "off", "scope_prefix": "https://api.lab.informationcart.com/", **more}


def nginx(folder: Path, api: Background, *serves: Serve, **options: Any) -> Nginx:
    """nginx in front of the API, which asks one of these verifiers; ``options`` are those of Gateway."""
    addresses = [serve.address for serve in serves]
    return Nginx(Gateway(folder / "nginx", free_port(), addresses, {"api": api.address}, **options))
