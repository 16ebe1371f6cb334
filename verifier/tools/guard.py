"""``m2m-verifier guard``: prints the complete configuration block that guards an API behind one proxy.

A block lists every header that the verifier sends: one that it omits would reach the API as the client sent it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from verifier.config import Config, ConfigError
from verifier.identity import IDENTITY_HEADERS
from verifier.policy.resources import WELL_KNOWN

POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # as in the configuration: it becomes part of a URL in the block


@dataclass(frozen=True, slots=True)
class Guard:
    """What a block is made for."""

    policy: str
    mapped: tuple[str, ...] = ()
    """The further headers under ``headers:``."""
    resource: bool = True
    """Whether the protected-resource document (RFC 9728) has to be public; True where it is not known."""

    @property
    def headers(self) -> tuple[str, ...]:
        """Every header that the verifier sends to the API."""
        return (*IDENTITY_HEADERS, *self.mapped)


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
        guard = Guard(policy, tuple(config.headers), policies[policy].resource is not None)
    out.write(PROXIES[proxy](guard))
    return 0


def _nginx(guard: Guard) -> str:
    variables = {name: f"$m2m_mapped_{_variable(name)}" for name in guard.mapped}
    variables |= {name: f"$m2m_{_variable(name).removeprefix('x_m2m_')}" for name in IDENTITY_HEADERS}
    ordered = [(name, variables[name]) for name in guard.headers]
    # A header that is set twice would reach the API twice.
    own = {"Host": "$http_host", "X-Request-ID": "$m2m_request_id", "Connection": '""'}
    taken = {name.lower() for name in guard.mapped}
    passed = [(name, value) for name, value in own.items() if name.lower() not in taken]
    return _NGINX % {
        "policy": guard.policy,
        "set": _lines(f"auth_request_set {value} $upstream_http_{_variable(name)};" for name, value in ordered),
        "headers": _lines(f"proxy_set_header {name} {value};" for name, value in [*ordered, *passed]),
        "metadata": _NGINX_METADATA % {"path": WELL_KNOWN} if guard.resource else "",
    }


def _variable(header: str) -> str:
    """The header's name as nginx writes it in a variable's name."""
    return header.lower().replace("-", "_")


def _lines(lines: Iterable[str]) -> str:
    return "\n    ".join(lines)


_NGINX = """\
# Inside http { }, for example as a file of its own in conf.d/.
upstream m2m_verifier {
  server unix:/run/m2m-verifier/verifier.sock;   # or its address, as in 127.0.0.1:8000
  keepalive 32;                                  # idle connections kept; without it each request opens one
  keepalive_timeout 60s;                         # less than the verifier's 75 s: nginx must close them first
}

upstream api {
  server 127.0.0.1:9000;
  keepalive 32;
}

map $http_x_request_id $m2m_request_id {
  default $http_x_request_id;
  "" $request_id;
}

server {
  listen 127.0.0.1:8080;
  underscores_in_headers off;   # the default: X_M2M_Role is the same as X-M2M-Role to a WSGI or CGI application

  location / {
    satisfy all;                # the default: with any, an allow line or a password would replace the token
    auth_request /_m2m;         # no request reaches the API before the verifier has answered 200
    %(set)s
    auth_request_set $m2m_reason $upstream_http_x_m2m_reason;
    add_header X-M2M-Reason $m2m_reason always;   # optional: gives callers the reason of a 401 or 403

    # Each header of the verifier replaces the client's own; where its value is empty, the API gets none.
    # A location inherits proxy_set_header only if it has none of its own: another location needs the whole list.
    %(headers)s
    proxy_http_version 1.1;
    proxy_pass http://api;
  }

  location = /_m2m {
    internal;                                    # clients cannot call the verifier
    proxy_pass_request_body off;                 # the verifier reads no body, and closes the connection on one
    proxy_set_header Content-Length "";          # no body, so no length
    proxy_set_header X-Original-URL $scheme://$http_host$request_uri;   # replaces the client's own
    proxy_set_header X-Original-Method $request_method;                 # replaces the client's own
    proxy_set_header X-Request-ID $m2m_request_id;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header Host m2m-verifier;
    proxy_set_header Connection "";
    proxy_http_version 1.1;
    proxy_connect_timeout 1s;
    proxy_read_timeout 5s;                       # the verifier waits up to 2 s for an issuer's keys
    proxy_pass http://m2m_verifier/verify/%(policy)s;   # the policy, which no header of the client can change
  }
%(metadata)s}
"""

_NGINX_METADATA = """
  location %(path)s {   # agents read it before they have a token
    proxy_set_header Host $http_host;
    proxy_pass http://m2m_verifier;
  }
"""


def _ingress_nginx(guard: Guard) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", guard.policy.lower()).strip("-")
    values = {"name": name, "policy": guard.policy, "headers": ", ".join(guard.headers), "path": WELL_KNOWN}
    return (_INGRESS + (_INGRESS_METADATA if guard.resource else "")) % values


_INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %(name)s
  annotations:
    # The verifier decides about each request before nginx passes it on; the path names the policy. Replace `auth` by
    # the verifier's namespace. nginx needs the full name, because it uses no DNS search domains.
    nginx.ingress.kubernetes.io/auth-url: http://m2m-verifier.auth.svc.cluster.local:8000/verify/%(policy)s
    # nginx replaces these headers by the verifier's. One that is missing reaches the API as the client sent it.
    nginx.ingress.kubernetes.io/auth-response-headers: %(headers)s
    # Counted before the verifier is asked: keeps a flood of bad tokens away from it.
    nginx.ingress.kubernetes.io/limit-rps: "50"
spec:
  ingressClassName: nginx
  # Without TLS, whoever reads a token on its way can use it.
  tls:
    - hosts: [%(name)s.example.com]
      secretName: %(name)s-tls
  rules:
    - host: %(name)s.example.com
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: {service: {name: %(name)s, port: {number: 8080}}}
"""

_INGRESS_METADATA = """\
---
# Agents read this document before they have a token (RFC 9728), so it has no auth-url. Nothing else may be public.
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %(name)s-metadata
  namespace: auth   # the verifier's: an Ingress reaches only Services of its own namespace
  annotations:
    nginx.ingress.kubernetes.io/limit-rps: "5"
spec:
  ingressClassName: nginx
  tls:
    - hosts: [%(name)s.example.com]
      secretName: %(name)s-tls
  rules:
    - host: %(name)s.example.com
      http:
        paths:
          - path: %(path)s
            pathType: Prefix
            backend: {service: {name: m2m-verifier, port: {number: 8000}}}
"""

PROXIES: dict[str, Callable[[Guard], str]] = {"nginx": _nginx, "ingress-nginx": _ingress_nginx}
"""The template of each proxy, by the name that ``--proxy`` takes."""
