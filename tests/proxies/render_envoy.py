"""Envoy, and what the controllers that render its filter make of their objects."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.proxies.where import BIN, Command, Where, objects
from verifier.policy.resources import WELL_KNOWN


def _cluster(name: str, address: str) -> dict[str, Any]:
    host, _, port = address.partition(":")
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": load}


def envoy(block: str, where: Where) -> Command:
    return _envoy(where, yaml.safe_load(block))


def _envoy(where: Where, manager: dict[str, Any]) -> Command:
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = {
        "@type": kind,
        "stat_prefix": "api",
        "codec_type": "AUTO",
        "preserve_external_request_id": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        **manager,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": where.port}}
    listener = {"name": "api", "address": address, "filter_chains": [chain]}
    clusters = [_cluster("api", where.api), _cluster("m2m_verifier", where.verifier)]
    text = json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}})
    return [str(BIN / "envoy"), "--config-path", where.write("envoy.json", text), "--concurrency", "1",
            "--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "error"]  # fmt: skip


def _exact(names: list[str]) -> dict[str, Any]:
    """Istio compares as they are written, in lower case, the others in any case."""
    return {"patterns": [{"exact": name} for name in names]}


def _ext_authz(
    where: Where, prefix: str, asked: list[str], passed: list[str], *, is_on: bool, status: int = 403, **manager: Any
) -> Command:
    """The filter that Envoy Gateway, Istio and Cilium render, on the route to the API."""
    types = "type.googleapis.com/envoy.extensions.filters.http."
    service = {
        "server_uri": {"uri": "http://m2m-verifier:8000", "cluster": "m2m_verifier", "timeout": "5s"},
        "path_prefix": prefix,
        "authorization_response": {"allowed_upstream_headers": _exact(passed)},
    }
    check = {
        "transport_api_version": "V3",
        "status_on_error": {"code": status},
        "allowed_headers": _exact(asked),
        "http_service": service,
    }
    off = {"envoy.filters.http.ext_authz": {"@type": types + "ext_authz.v3.ExtAuthzPerRoute", "disabled": True}}
    routes: list[dict[str, Any]] = [
        {"match": {"path_separated_prefix": WELL_KNOWN}, "route": {"cluster": "m2m_verifier"},
         "typed_per_filter_config": off},
        {"match": {"prefix": "/"}, "route": {"cluster": "api"}, **({} if is_on else {"typed_per_filter_config": off})},
    ]  # fmt: skip
    return _envoy(where, {
        **manager,
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz",
             "typed_config": {"@type": types + "ext_authz.v3.ExtAuthz", **check}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": types + "router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "api", "domains": ["*"], "routes": routes}]},
    })  # fmt: skip


def envoy_gateway(block: str, where: Where) -> Command:
    spec = objects(block)["SecurityPolicy"]["spec"]
    http = spec["extAuth"]["http"]
    return _ext_authz(
        where, http.get("path", ""), spec["extAuth"]["headersToExtAuth"], http["headersToBackend"],
        is_on=bool(spec["targetRefs"]), status=spec["extAuth"]["statusOnError"],
        normalize_path=True, merge_slashes=True, path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
        common_http_protocol_options={"headers_with_underscores_action": "REJECT_REQUEST"},
    )  # fmt: skip


def istio(block: str, where: Where) -> Command:
    found = objects(block)
    [provider] = found[""]["extensionProviders"]
    http, spec = provider["envoyExtAuthzHttp"], found["AuthorizationPolicy"]["spec"]
    is_on = spec.get("action") == "CUSTOM" and spec.get("provider") == {"name": provider["name"]}
    return _ext_authz(
        where, http.get("pathPrefix", ""), http["includeRequestHeadersInCheck"], http["headersToUpstreamOnAllow"],
        is_on=is_on and "selector" in spec and "rules" in spec, status=int(http["statusOnError"]),
        normalize_path=True,
    )  # fmt: skip


def gateway_api(block: str, where: Where) -> Command:
    """As Cilium renders the filter ExternalAuth; without its ReferenceGrant it asks nobody."""
    found = objects(block)
    http: dict[str, Any] = {}
    for one in found["HTTPRoute"]["spec"]["rules"][0].get("filters") or []:
        http = one["externalAuth"]["http"] if one.get("type") == "ExternalAuth" else {}
    return _ext_authz(
        where, http.get("path", ""), http.get("allowedHeaders", []), http.get("allowedResponseHeaders", []),
        is_on=bool(http) and "to" in found["ReferenceGrant"]["spec"],
    )  # fmt: skip
