"""Starts what an example needs around its service: a token issuer, the verifier and nginx, on free loopback ports.

The files of an example name production addresses. Here local ones replace them:

| in verifier.yaml, nginx.conf | here |
|---|---|
| `https://id.example.com` | the local issuer |
| `https://api.example.com` | nginx |
| `unix:/run/m2m-verifier/verifier.sock`, `127.0.0.1:8080`, `127.0.0.1:9000` | verifier, nginx, service |
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import httpx
import yaml

from verifier.demo.issuer import Client, Issuer
from verifier.demo.nginx import Nginx, PlainNginx
from verifier.demo.processes import Child, ProcessError, Verifier, status_of
from verifier.demo.serving import Background, bind, free_port, port_of

ROOT = Path(__file__).parents[1]
START_TIMEOUT = 300.0
"""Seconds that a service has to answer."""


class Stack:
    """`with Stack(folder, clients) as stack:` issuer, verifier and nginx run inside, and have stopped after it.

    Args:
        folder: the example's, with `verifier.yaml` and `nginx.conf`.
        clients: by id; scopes are without the prefix that `scope_prefix` in `verifier.yaml` names.

    Files that `verifier.yaml` refers to, such as keys made at the start, go into `directory` before it is entered.

    Raises:
        ProcessError: nginx or the verifier did not start.
    """

    def __init__(self, folder: Path, clients: Mapping[str, Client | Sequence[str]]) -> None:
        self.folder = folder
        self._temporary = tempfile.TemporaryDirectory(prefix="m2m-example-")
        self.directory = Path(self._temporary.name)
        self.port, self.service_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._issuer_socket = bind()
        self.issuer = Issuer(f"http://127.0.0.1:{port_of(self._issuer_socket)}")
        local = {"https://id.example.com": self.issuer.url, "https://api.example.com": self.url}
        self.configuration = yaml.safe_load(replaced((folder / "verifier.yaml").read_text(), local))
        self.issuer.prefix = self.configuration.get("scope_prefix", "")
        self.issuer.clients = {name: one if isinstance(one, Client) else Client(one) for name, one in clients.items()}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as running:
            running.enter_context(self._temporary)
            running.enter_context(Background(self.issuer.app, self._issuer_socket))
            self.verifier = running.enter_context(Verifier(self.configuration, self.directory))
            local = {
                "unix:/run/m2m-verifier/verifier.sock": self.verifier.address,
                "127.0.0.1:8080": f"127.0.0.1:{self.port}",
                "127.0.0.1:9000": f"127.0.0.1:{self.service_port}",
            }
            block = replaced((self.folder / "nginx.conf").read_text(), local)
            gateway = PlainNginx(self.directory / "nginx", self.port, [], server_snippet=block)
            self.nginx = running.enter_context(Nginx(gateway))
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None, path: str = "/") -> None:
        """Start the service, which listens on `service_port`, and wait until it answers to `path`.

        It ends with the stack.

        Raises:
            ProcessError: it died, or did not answer within START_TIMEOUT.
        """
        service = Child(command, self.directory / "service.log", environment=environment or local_environment())
        self._running.callback(service.stop, signal.SIGTERM, 10)
        url = f"http://127.0.0.1:{self.service_port}{path}"
        with httpx.Client(trust_env=False, timeout=10) as client:
            service.wait_until(lambda: status_of(client, url) > 0, START_TIMEOUT, "the service did not start")

    def token(self, client_id: str, *scopes: str) -> str:
        """An access token from the issuer's token endpoint: with these scopes, or with all that the client may have.

        Raises:
            httpx.HTTPStatusError: the issuer refused.
        """
        form = {"grant_type": "client_credentials"}
        if scopes:
            form["scope"] = " ".join(self.issuer.prefix + scope for scope in scopes)
        secret = self.issuer.clients[client_id].secrets[0]
        with httpx.Client(trust_env=False, timeout=10) as client:
            answer = client.post(f"{self.issuer.base}/oauth2/token", data=form, auth=(client_id, secret))
        token: str = answer.raise_for_status().json()["access_token"]
        return token


def replaced(text: str, local: Mapping[str, str]) -> str:
    """The text with local addresses instead of those of production."""
    for address, ours in local.items():
        text = text.replace(address, ours)
    return text


def local_environment(**more: str) -> dict[str, str]:
    """This process's variables and `more`, for a process that talks to this machine alone."""
    # Without PYTHONSAFEPATH, which this process may have: a service imports modules that stand beside it.
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    own.pop("PYTHONSAFEPATH", None)
    return own | more


def environment_python(name: str) -> str:
    """The Python of the environment that `make` builds of `examples/NAME/requirements.txt`.

    Raises:
        ProcessError: it has not been built.
    """
    python = ROOT / "build" / "examples" / name / "bin" / "python"
    if not python.exists():
        raise ProcessError(f"{python} does not exist: run `make example-{name}`")
    return str(python)


Step = tuple[str, bool, str]
"""A title, whether it went as expected, and what was seen."""


def main(running: Callable[[], AbstractContextManager[Stack]], steps: Callable[[Stack], Iterable[Step]]) -> int:
    """The command of an example: start the stack, take and print the steps, stop.

    The exit status: 0 if all steps went as expected.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else SIGTERM would leave nginx and the verifier behind
    results = []
    try:
        with running() as stack:
            for title, right, seen in steps(stack):
                print(f"{'ok' if right else 'FAILED':6}  {title}\n        {seen}", flush=True)
                results.append(right)
    except KeyboardInterrupt:
        return 130
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if results and all(results) else 1
