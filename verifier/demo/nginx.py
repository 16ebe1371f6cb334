"""A private nginx that guards locations as ingress-nginx 1.15 does with `auth-url` and `auth-response-headers`.

The text is in `templates.py`.
"""

import base64
import grp
import os
import pwd
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from verifier.demo import templates
from verifier.demo.processes import Child, ProcessError
from verifier.identity import IDENTITY_HEADERS

START_TIMEOUT = STOP_TIMEOUT = 5.0
"""Seconds within which nginx must listen, and finish its requests."""


@dataclass(frozen=True, slots=True)
class Location:
    """One path of an Ingress (pathType Prefix): `/db` guards `/db` and `/db/…`, not `/dbx`.

    `auth` is the path and query of its `auth-url` on the verifier, such as `/verify/api?scope=read`; None leaves the
    location open. `backend` is a key of `Gateway.backends`, or `verifier`.
    """

    path: str
    auth: str | None = None
    backend: str = "api"


OPEN_METADATA = Location("/.well-known/oauth-protected-resource", backend="verifier")
"""Agents read RFC 9728 documents before they have a token."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The settings of nginx; addresses are `host:port`.

    `keepalive=False` opens a connection for each subrequest, as ingress-nginx does while `auth-keepalive` is unset;
    True reuses them, as plain nginx can. `response_headers` are those of `auth-response-headers`: nginx overwrites or
    removes them when a client sends them. `server_snippet` goes into the server block as it is. `prefix` is created.
    """

    prefix: Path
    port: int
    verifiers: Sequence[str]
    backends: Mapping[str, str] = field(default_factory=dict)
    locations: Sequence[Location] = (Location("/", auth="/verify"), OPEN_METADATA)
    response_headers: Sequence[str] = IDENTITY_HEADERS
    keepalive: bool = False
    workers: int = 1
    access_log: str = "off"
    server_snippet: str = ""

    def render(self) -> str:
        """The whole nginx.conf."""
        user = ""
        if os.geteuid() == 0:  # else the workers run as `nobody`, which cannot read a private prefix
            user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
        pools = [_pool(name, [address]) for name, address in self.backends.items()]
        pools.append(_pool("verifier", self.verifiers, keepalive=self.keepalive))
        locations = [text for location in self.locations for text in self._locations(location)]
        return templates.MAIN % {
            "user": user,
            "prefix": self.prefix,
            "port": self.port,
            "workers": self.workers,
            "access_log": self.access_log,
            "pools": "\n".join(pools),
            "locations": "\n".join([*locations, self.server_snippet]),
        }

    def _locations(self, location: Location) -> Iterator[str]:
        path = location.path.rstrip("/")
        # ingress-nginx turns a Prefix path into these two, so that it matches whole segments only.
        for match, name, kind in ((f"{path}/", f"{path}/", "Prefix"), (f"= {path}", path, "Exact")):
            if not name:
                continue
            guard = ""
            if location.auth is not None:
                encoded = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
                auth_path = f"/_external-auth-{encoded}-{kind}"
                # Without this line nginx sends `Connection: close`.
                reuse = 'proxy_set_header Connection "";' if self.keepalive else ""
                yield templates.AUTH % {
                    "auth_path": auth_path,
                    "target": f"http://verifier{location.auth}",
                    "reuse": reuse,
                }
                guard = templates.GUARD % {"auth_path": auth_path, "headers": self._response_headers()}
            yield templates.LOCATION % {"match": match, "guard": guard, "backend": location.backend}

    def _response_headers(self) -> str:
        lines = []
        for number, header in enumerate(self.response_headers):
            variable = header.lower().replace("-", "_")
            lines.append(f"auth_request_set $authHeader{number} $upstream_http_{variable};")
            lines.append(f"proxy_set_header '{header}' $authHeader{number};")
        return "\n      ".join(lines)


class PlainNginx(Gateway):
    """An nginx.conf around a block of `m2m-verifier guard --proxy nginx`, which is in `server_snippet`."""

    def render(self) -> str:
        """The whole nginx.conf."""
        return f"{super().render().partition('  access_log')[0]}\n  access_log off;\n{self.server_snippet}\n}}\n"


class Nginx:
    """`with Nginx(gateway):` nginx listens inside, and has stopped after it.

    Raises:
        ProcessError: nginx is not installed, or did not listen within START_TIMEOUT.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.config = gateway.prefix / "nginx.conf"
        self.log_file = gateway.prefix / "error.log"

    def __enter__(self) -> Self:
        prefix = self.gateway.prefix
        prefix.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self.gateway.render())
        pid_file = prefix / "nginx.pid"
        pid_file.unlink(missing_ok=True)
        command = [find_nginx(), "-p", str(prefix), "-c", str(self.config), "-e", "stderr"]
        self.child = Child(command, self.log_file)
        # Another server on the port would answer too; nginx writes its pid only once it listens.
        self.child.wait_until(
            lambda: pid_file.exists() and bool(pid_file.read_text().strip()),
            START_TIMEOUT,
            f"nginx did not start on port {self.gateway.port}",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let nginx finish its requests (SIGQUIT); kill it and its workers after STOP_TIMEOUT seconds."""
        self.child.stop(signal.SIGQUIT, STOP_TIMEOUT)


def find_nginx(path: str | None = None) -> str:
    """The path of the nginx binary. Debian installs it in /usr/sbin, which is only on root's PATH.

    Raises:
        ProcessError: there is none.
    """
    path = path or f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    binary = shutil.which("nginx", path=path)
    if binary is None:
        raise ProcessError("nginx is not installed; on Debian: apt-get install nginx")
    return binary


def _pool(name: str, addresses: Sequence[str], *, keepalive: bool = True) -> str:
    servers = "".join(f" server {address};" for address in addresses)
    return f"  upstream {name} {{{servers}{' keepalive 320; keepalive_timeout 60s;' if keepalive else ''} }}"
