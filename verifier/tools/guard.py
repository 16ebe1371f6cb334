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

PROXIES = {
    "nginx": "nginx.conf",
    "ingress-nginx": "ingress-nginx.yaml",
    "traefik": "traefik.yaml",
    "traefik-ingress-nginx": "traefik-ingress-nginx.yaml",
    "caddy": "Caddyfile",
    "envoy": "envoy.yaml",
    "envoy-gateway": "envoy-gateway.yaml",
    "istio": "istio.yaml",
    "haproxy": "haproxy.cfg",
    "gateway-api": "gateway-api.yaml",
    "nginx-gateway-fabric": "nginx-gateway-fabric.yaml",
    "nginx-ingress-controller": "nginx-ingress-controller.yaml",
    "cilium": "cilium.yaml",
}
"""The file in ``blocks/`` of each proxy, by the name that ``--proxy`` takes."""

POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # as in the configuration: it becomes part of a URL in the block

_RESOURCE = "#-- only where the policy has a resource\n"  # before and after the part about its document
_CERTIFICATES = "#-- only where tokens are bound to certificates\n"  # before and after the part about them

# What the verifier reads beside Authorization, for proxies that pass on no other header.
_HIDDEN = "# guards: with it, token: none asks for a token"
_ASKED = {"X-HTTP-Method-Override": _HIDDEN, "X-HTTP-Method": _HIDDEN, "X-Method-Override": _HIDDEN}
_ASKED |= dict.fromkeys(("DPoP", "X-Request-ID", "traceparent"), "")


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

    @property
    def headers(self) -> tuple[str, ...]:
        """Every header that the verifier sends to the API."""
        return (*IDENTITY_HEADERS, *self.mapped)

    def block(self, proxy: str) -> str:
        """The configuration for one of PROXIES."""
        text = Path(__file__).with_name("blocks").joinpath(PROXIES[proxy]).read_text(encoding="utf-8")
        for marker, is_wanted in ((_RESOURCE, self.resource), (_CERTIFICATES, bool(self.certificates))):
            parts = text.split(marker)
            if is_wanted and len(parts) == 1 and marker == _CERTIFICATES:
                raise ConfigError([f"--proxy: no block for {proxy} passes a certificate (client_certificate_header)"])
            text = "".join(parts if is_wanted else parts[::2])
        return text % _Values(self)

    def guarding(self, proxy: str) -> list[int]:
        """The numbers, from 0, of the lines of a block without which a request could pass unchecked or forged.

        They have a comment that begins with ``guards:``, beside them or above them, or they name a header.
        """
        name = re.compile(rf"[^#]*\b({'|'.join(map(re.escape, self.headers))})\b", re.IGNORECASE)
        lines = self.block(proxy).splitlines()
        above = ["", *lines]
        return [
            number for number, line in enumerate(lines)
            if not re.match(r"\s*#", line)
            and ("# guards:" in line or re.match(r"\s*# guards:", above[number]) or name.match(line))
        ]  # fmt: skip


class _Values(dict[str, str]):
    """What stands in the blocks, by name. A number at the end of a name indents a list for YAML."""

    def __init__(self, guard: Guard) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", guard.policy.lower()).strip("-")
        super().__init__(policy=guard.policy, name=name, path=WELL_KNOWN)
        headers = guard.headers
        self["headers"], self["spaced"] = ", ".join(headers), " ".join(headers)
        self["joined"] = ",".join(headers).lower()
        self["alternatives"] = "|".join(headers).lower()
        self["caddy"] = "\n".join(f"\t\trequest_header -{header}" for header in headers)
        read, sent = _nginx_directives(headers)
        # A mapped header may have one of these names: set twice, it would reach the API twice.
        others = (("Host", "$http_host"), ("X-Request-ID", "$m2m_request_id"), ("Connection", '""'))
        mapped = set(map(str.lower, headers))
        further = [f"proxy_set_header {name} {value};" for name, value in others if name.lower() not in mapped]
        passed = [f"proxy_set_header {name} $ssl_client_escaped_cert;" for name in guard.certificates]
        self["certificates"] = "\n    ".join(passed)
        self["read"], self["sent"] = "\n    ".join(read), "\n    ".join((*sent, *further))
        self._lists = {
            "yaml": [f"- {header}" for header in headers],
            "lower": [f"- {header.lower()}" for header in headers],
            "exact": [f"- exact: {header.lower()}" for header in headers],
            "asked": [f"- {header.lower()}   {why}".rstrip() for header, why in _ASKED.items()],
            "matched": [f"- exact: {header.lower()}   {why}".rstrip() for header, why in _ASKED.items()],
            "snippet": [*read, *sent],
        }

    def __missing__(self, key: str) -> str:
        name = key.rstrip("0123456789")
        indent = " " * int(key.removeprefix(name))
        return "\n".join(indent + line for line in self._lists[name])


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


def _nginx_directives(headers: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """How nginx reads each header from the verifier's answer, and sets it in the API's request."""
    read, sent = [], []
    for header in headers:
        name = header.lower().replace("-", "_")
        # No mapped header begins with X-M2M-, so no two have one variable.
        variable = "$m2m_" + (name.removeprefix("x_m2m_") if header in IDENTITY_HEADERS else f"mapped_{name}")
        read.append(f"auth_request_set {variable} $upstream_http_{name};")
        sent.append(f"proxy_set_header {header} {variable};")
    return read, sent
