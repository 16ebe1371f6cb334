"""The demo: issuer, API, verifier and nginx on one machine, and a walk through what they do.

Issuer and API run in threads of this process, the verifier and nginx as the processes that they are in production.
"""

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from verifier.demo import walk
from verifier.demo.api import api
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import OPEN_METADATA, Gateway, Location, Nginx
from verifier.demo.processes import Child, ProcessError, Verifier
from verifier.demo.serving import Background, bind, free_port, port_of
from verifier.server import signals

LOCATIONS = (Location("/", auth="/verify/api"), Location("/oauth2/token", backend="issuer"), OPEN_METADATA)


class Stack:
    """`with Stack(port):` all of it runs inside, and has stopped after it.

    Args:
        port: what nginx listens on, on the loopback address; 0 takes any free one.
        audit: whether the verifier's audit lines go to this process's standard output.
        watch: called often while starting; what it raises ends the start.

    Raises:
        ProcessError: the port is taken, or nginx or the verifier did not start.
    """

    def __init__(self, port: int, *, audit: bool = False, watch: Callable[[], None] = lambda: None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._audit = audit
        self._watch = watch

    def __enter__(self) -> Self:
        try:
            bind(self.port).close()
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ProcessError(f"cannot listen on port {self.port}: {reason}; choose another with --port") from None
        with contextlib.ExitStack() as running:
            directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="m2m-demo-")))
            listener = bind()
            self.issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
            self.client_id, self.secret = self.issuer.add_client("read")
            issuer = running.enter_context(Background(self.issuer.app, listener))
            backend = running.enter_context(Background(api))
            self.verifier = running.enter_context(
                Verifier(self._configuration(), directory, audit=self._audit, watch=self._watch)
            )
            backends = {"api": backend.address, "issuer": issuer.address}
            gateway = Gateway(directory / "nginx", self.port, [self.verifier.address], backends, LOCATIONS)
            nginx = running.enter_context(Nginx(gateway))
            self._parts: dict[str, Background | Child | Nginx] = {
                "the issuer": issuer,
                "the API": backend,
                "the verifier": self.verifier.child,
                "nginx": nginx,
            }
            self._running = running.pop_all()
        return self

    def _configuration(self) -> dict[str, Any]:
        issuer = {
            "name": "demo",
            "profile": "cognito",
            "issuer": self.issuer.url,
            "jwks_url": self.issuer.jwks_url,
            "clients": [self.client_id],
        }
        rules = [
            {"path": "/**", "methods": ["GET", "HEAD"], "scope": ["read"]},
            {"path": "/**", "methods": ["POST", "PUT", "PATCH", "DELETE"], "scope": ["write"]},
        ]
        resource = {
            "url": self.url,
            "authorization_servers": [self.issuer.url],
            "scopes_supported": ["read", "write"],
        }
        return {
            "issuers": [issuer],
            "scope_prefix": self.issuer.prefix,
            "policies": {"api": {"rules": rules, "resource": resource}},
            "roles": {"clients": {self.client_id: walk.ROLE}},
        }

    def require_alive(self) -> None:
        """Raise ProcessError if anything that was started has died."""
        for name, part in self._parts.items():
            if not part.alive:
                raise ProcessError(f"{name} died\n{part.log}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._running.close()


class _Stopped(Exception):
    """Somebody asked the demo to stop."""


def run(port: int = 8080, check: bool = False) -> int:
    """Run the demo until Ctrl-C or SIGTERM (exit status 0), or until a part of it dies (1).

    With `check` it takes the walk itself instead: 0 if each step went as it should, else 1.
    """
    received: list[int] = []

    def watch() -> None:
        if received:
            raise _Stopped

    # A flag that is looked at, not an exception: nothing is started and then forgotten.
    for number in (*signals.SIGNALS, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.append(number))
    signals.unblock()
    try:
        with Stack(port, audit=not check, watch=watch) as stack:
            if check:
                if walk.check(stack, watch):
                    return 0
                print(stack.verifier.child.log, file=sys.stderr)
                return 1
            print(walk.instructions(stack), flush=True)
            while True:
                watch()
                stack.require_alive()
                time.sleep(0.2)
    except _Stopped:
        return 1 if check else 0  # a check that did not finish did not pass
    except ProcessError as error:
        print(f"m2m-verifier demo: {str(error).strip()}", file=sys.stderr)
        return 1
    finally:
        signals.block()
