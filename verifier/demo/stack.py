"""Starts token issuer, API, verifier and nginx on one machine.

Issuer and API run in threads of this process, the verifier and nginx in processes of their own, as in production.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from verifier.demo.api import api
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import OPEN_METADATA, Gateway, Location, Nginx
from verifier.demo.processes import Child, ProcessError, Verifier
from verifier.demo.serving import Background, bind, free_port, port_of

ROLE = "arn:aws:iam::123456789012:role/demo-reader"
"""The role that the demo's configuration gives to its client."""

LOCATIONS = (Location("/", auth="/verify/api"), Location("/oauth2/token", backend="issuer"), OPEN_METADATA)


class Stack:
    """`with Stack(port):` everything runs inside, and has stopped after it.

    Args:
        port: nginx's port on the loopback address; 0 takes any free one.
        audit: whether the verifier's audit lines go to this process's standard output.
        watch: called often while starting; an exception that it raises ends the start.
        say: called with the name of each part before it is started.

    Raises:
        ProcessError: the port is taken, or nginx or the verifier did not start.
    """

    def __init__(
        self,
        port: int,
        *,
        audit: bool = False,
        watch: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._audit = audit
        self._watch = watch
        self._say = say

    def __enter__(self) -> Self:
        try:
            bind(self.port).close()
        except (OSError, OverflowError) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else error
            raise ProcessError(f"cannot listen on port {self.port}: {reason}; choose another with --port") from None
        with contextlib.ExitStack() as running:
            directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="m2m-demo-")))
            self._say("token issuer and API")
            listener = bind()
            self.issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
            self.client_id, self.secret = self.issuer.add_client("read")
            issuer = running.enter_context(Background(self.issuer.app, listener))
            backend = running.enter_context(Background(api))
            self._say("verifier")
            self.verifier = running.enter_context(
                Verifier(self._configuration(), directory, audit=self._audit, watch=self._watch)
            )
            self._say("nginx")
            backends = {"api": backend.address, "issuer": issuer.address}
            gateway = Gateway(directory / "nginx", self.port, [self.verifier.address], backends, LOCATIONS)
            self.nginx = running.enter_context(Nginx(gateway))
            self._parts: dict[str, Background | Child] = {
                "the issuer": issuer,
                "the API": backend,
                "the verifier": self.verifier.child,
                "nginx": self.nginx.child,
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
            "roles": {"clients": {self.client_id: ROLE}},
        }

    def require_alive(self) -> None:
        """Raise ProcessError if a part has died."""
        for name, part in self._parts.items():
            if not part.alive:
                raise ProcessError(f"{name} died\n{part.log}")

    def __exit__(self, *_: object) -> None:
        self._running.close()
