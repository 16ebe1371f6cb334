"""Envoy as the proxy in front of the API: with its own filter jwt_authn, and with ext_authz, which asks ours.

jwt_authn is also asked directly, with and without its cache. It checks signature, issuer and times; it looks at no
scope and writes no audit line (in its favour).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from bench.servers import ServerSpec
from bench.sides import ours
from bench.sides.context import CACHE_SIZE, Context, inside
from bench.tokens import ISSUER

FILTERS = "envoy.extensions.filters"


def binary() -> Path:
    return inside("envoy", "_bin", "envoy")


def _type(name: str) -> dict[str, str]:
    return {"@type": f"type.googleapis.com/{name}"}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _jwt_authn(context: Context, *, cache: bool) -> dict[str, Any]:
    provider: dict[str, Any] = {
        "issuer": ISSUER,
        "forward": True,  # the API gets the Authorization header, as it does behind nginx
        "local_jwks": {"inline_string": json.dumps(context.tokens.jwks())},
        "claim_to_headers": [
            {"header_name": "x-m2m-client-id", "claim_name": "client_id"},
            {"header_name": "x-m2m-scope", "claim_name": "scope"},
        ],
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": CACHE_SIZE}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            **_type(f"{FILTERS}.http.jwt_authn.v3.JwtAuthentication"),
            "providers": {"cognito": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "cognito"}}],
        },
    }


def _listener(name: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    kind = _type(f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager")
    network = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {**kind, "stat_prefix": name, **manager},
    }
    return {"name": name, "address": _address(port), "filter_chains": [{"filters": [network]}]}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    load = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": load}


def jwt_authn(context: Context, name: str, *, cache: bool = False) -> ServerSpec:
    """Two listeners: NAME answers itself, NAME-proxy passes on to the API."""
    answer = {
        "direct_response": {"status": 200},
        "response_headers_to_add": [
            {"header": {"key": "x-m2m-client-id", "value": "%REQ(x-m2m-client-id)%"}},
            {"header": {"key": "x-m2m-scope", "value": "%REQ(x-m2m-scope)%"}},
            {"header": {"key": "cache-control", "value": "no-store"}},
        ],
    }
    filters = [
        _jwt_authn(context, cache=cache),
        {"name": "envoy.filters.http.router", "typed_config": _type(f"{FILTERS}.http.router.v3.Router")},
    ]

    def manager(route: dict[str, Any]) -> dict[str, Any]:
        host = {"name": "api", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}
        return {"http_filters": filters, "route_config": {"virtual_hosts": [host]}}

    return _spec(
        context,
        name,
        listeners=[
            _listener("direct", context.ports[name], manager(answer)),
            _listener("proxy", context.ports[f"{name}-proxy"], manager({"route": {"cluster": "api"}})),
        ],
        clusters=[_cluster("api", context.ports["api"])],
    )


def ext_authz(context: Context, name: str) -> ServerSpec:
    """The API behind the filter that asks ours, as `m2m-verifier guard` prints it."""
    return _spec(
        context,
        name,
        listeners=[_listener("proxy", context.ports[name], yaml.safe_load(ours.guard(context, "envoy")))],
        clusters=[_cluster("api", context.ports["api"]), _cluster("m2m_verifier", context.ports["ours"])],
    )


def _spec(context: Context, name: str, **resources: list[dict[str, Any]]) -> ServerSpec:
    admin = context.ports[f"{name}-admin"]
    configuration = {"admin": {"address": _address(admin)}, "static_resources": resources}
    path = context.folder("config") / f"{name}.json"
    path.write_text(json.dumps(configuration, indent=1))
    return ServerSpec(
        name=name,
        argv=[
            *(str(binary()), "--config-path", str(path), "--concurrency", "1"),
            *("--use-dynamic-base-id", "--log-level", "warning"),
        ],
        ready=(admin, "/ready"),
    )
