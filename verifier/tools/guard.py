"""``m2m-verifier guard``: prints the complete configuration block that guards an API behind one proxy.

A block lists every header that the verifier sends: one that it omits would reach the API as the client sent it. The
texts are in ``blocks/``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from verifier.config import Config, ConfigError
from verifier.identity import IDENTITY_HEADERS
from verifier.policy.resources import WELL_KNOWN
from verifier.proxies import nginx

PROXIES = {"nginx": "nginx.conf", "ingress-nginx": "ingress-nginx.yaml"}
"""The file in ``blocks/`` of each proxy, by the name that ``--proxy`` takes."""

POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # as in the configuration: it becomes part of a URL in the block
_RESOURCE = "#-- only where the policy has a resource\n"  # before and after the part about its document
_CERTIFICATES = "#-- only where tokens are bound to certificates\n"  # before and after the part about them


@dataclass(frozen=True, slots=True)
class Guard:
    """What a block is made for."""

    policy: str
    mapped: tuple[str, ...] = ()
    """The further headers under ``headers:``."""
    resource: bool = True
    """Whether the protected-resource document (RFC 9728) has to be public; True where it is not known."""
    certificates: tuple[str, ...] = ()
    """The headers in which the verifier expects a client's certificate (RFC 8705)."""

    def block(self, proxy: str) -> str:
        """The configuration for one of PROXIES."""
        headers = (*IDENTITY_HEADERS, *self.mapped)  # every header that the verifier sends to the API
        name = re.sub(r"[^a-z0-9]+", "-", self.policy.lower()).strip("-")
        values = {"policy": self.policy, "name": name, "path": WELL_KNOWN, "headers": ", ".join(headers)}
        values |= _nginx_directives(headers)
        passed = [f"proxy_set_header {name} $ssl_client_escaped_cert;" for name in self.certificates]
        values["certificates"] = "\n    ".join(passed)
        text = Path(__file__).with_name("blocks").joinpath(PROXIES[proxy]).read_text(encoding="utf-8") % values
        for marker, is_wanted in ((_RESOURCE, self.resource), (_CERTIFICATES, bool(self.certificates))):
            parts = text.split(marker)
            text = "".join(parts if is_wanted else parts[::2])
        return text


def main(proxy: str, policy: str, config: Config | None, out: TextIO) -> int:
    """Print the block for one proxy and policy. The exit status.

    Raises:
        ConfigError: there is no such proxy or policy.
    """
    if proxy not in PROXIES:
        raise ConfigError([f"--proxy: must be one of {', '.join(PROXIES)}"])
    if not POLICY.fullmatch(policy):
        raise ConfigError(["--policy: must be letters, digits, dots, dashes or underscores"])
    if config is None:
        print("without --config, no header of the section headers: is in the block", file=sys.stderr)
        guard = Guard(policy)
    else:
        policies = config.policies.by_name
        if policy not in policies:
            known = ", ".join(sorted(policies))
            raise ConfigError([f"--policy: the configuration has no policy {policy!r}; its policies are {known}"])
        guard = Guard(policy, tuple(config.headers), policies[policy].resource is not None, config.certificate_headers)
        if proxy == "ingress-nginx" and not set(guard.certificates) <= {nginx.CERTIFICATE}:
            raise ConfigError([f"--proxy: ingress-nginx needs client_certificate_header: {nginx.CERTIFICATE}"])
    out.write(guard.block(proxy))
    return 0


def _nginx_directives(headers: tuple[str, ...]) -> dict[str, str]:
    """How plain nginx reads each header from the verifier's answer, and sets it in the API's request."""
    read, sent = [], []
    for header in headers:
        name = header.lower().replace("-", "_")
        # No mapped header begins with X-M2M-, so no two have one variable.
        variable = "$m2m_" + (name.removeprefix("x_m2m_") if header in IDENTITY_HEADERS else f"mapped_{name}")
        read.append(f"auth_request_set {variable} $upstream_http_{name};")
        sent.append(f"proxy_set_header {header} {variable};")
    # A mapped header may have one of these names: set twice, it would reach the API twice.
    for header, value in (("Host", "$http_host"), ("X-Request-ID", "$m2m_request_id"), ("Connection", '""')):
        if header.lower() not in map(str.lower, headers):
            sent.append(f"proxy_set_header {header} {value};")
    return {"read": "\n    ".join(read), "sent": "\n    ".join(sent)}
