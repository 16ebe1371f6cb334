"""Envoy's jwt_authn filter: asked directly, and as the proxy in front of the API, with and without its cache.

It checks signature, issuer and times; it looks at no scope and writes no audit line (in its favour).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.servers import ServerSpec
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


def _listener(name: str, port: int, route: dict[str, Any], authn: dict[str, Any]) -> dict[str, Any]:
    manager = {
        **_type(f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]
        },
        "http_filters": [
            authn,
            {"name": "envoy.filters.http.router", "typed_config": _type(f"{FILTERS}.http.router.v3.Router")},
        ],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {"name": name, "address": _address(port), "filter_chains": [{"filters": [network]}]}


def configuration(context: Context, name: str, *, cache: bool) -> dict[str, Any]:
    authn = _jwt_authn(context, cache=cache)
    answer = {
        "direct_response": {"status": 200},
        "response_headers_to_add": [
            {"header": {"key": "x-m2m-client-id", "value": "%REQ(x-m2m-client-id)%"}},
            {"header": {"key": "x-m2m-scope", "value": "%REQ(x-m2m-scope)%"}},
            {"header": {"key": "cache-control", "value": "no-store"}},
        ],
    }
    api = {
        "name": "api",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "api",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(context.ports["api"])}}]}],
        },
    }
    return {
        "admin": {"address": _address(context.ports[f"{name}-admin"])},
        "static_resources": {
            "listeners": [
                _listener("direct", context.ports[name], answer, authn),
                _listener("proxy", context.ports[f"{name}-proxy"], {"route": {"cluster": "api"}}, authn),
            ],
            "clusters": [api],
        },
    }


def spec(context: Context, name: str, *, cache: bool) -> ServerSpec:
    path = context.folder("config") / f"{name}.json"
    path.write_text(json.dumps(configuration(context, name, cache=cache), indent=1))
    return ServerSpec(
        name=name,
        argv=[
            *(str(binary()), "--config-path", str(path), "--concurrency", "1"),
            *("--use-dynamic-base-id", "--log-level", "warning"),
        ],
        ready=(context.ports[f"{name}-admin"], "/ready"),
    )
