"""What each proxy runs: `guard`'s block in the least configuration around it.

Each function takes the block as text, in which a test may have removed a line, and gives a command and its files.
Kubernetes objects are turned into what their controllers make of them; docs/proxies.md names the sources.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from verifier.demo.nginx import Gateway, Location, find_nginx
from verifier.policy.resources import WELL_KNOWN

LUA = "HAPROXY_AUTH_REQUEST"
"""The folder with auth-request.lua and haproxy-lua-http/http.lua, which no package has."""

BIN = Path(sys.executable).parent
AUTH = "m2m-verifier.auth.svc.cluster.local:8000"  # the verifier's address in a cluster, as the blocks have it


@dataclass(frozen=True)
class Where:
    """Addresses (`host:port`) and a folder for one run. ``h2`` is a port for HTTP/2 without TLS, perhaps the same."""

    folder: Path
    port: int
    h2: int
    verifier: str
    api: str

    def write(self, name: str, text: str) -> str:
        """Write a file of the proxy; its path."""
        (self.folder / name).write_text(text)
        return str(self.folder / name)


Command = list[str]
Render = Callable[[str, Where], Command]


def replaced(block: str, *pairs: tuple[str, str]) -> str:
    """The block with the addresses of a test. Those that a removed line had are gone."""
    for shown, used in pairs:
        block = block.replace(shown, used)
    return block


def objects(block: str) -> dict[str, dict[str, Any]]:
    """Kubernetes objects by kind, those about the metadata document as kind + "-metadata"; others by ""."""
    found: dict[str, dict[str, Any]] = {}
    for document in yaml.safe_load_all(block):
        is_metadata = str(document.get("metadata", {}).get("name", "")).endswith("-metadata")
        found[document.get("kind", "") + "-metadata" * is_metadata] = document
    return found


# --- nginx, and the controllers that render auth_request ---


def _nginx(where: Where, http: str) -> Command:
    gateway = Gateway(where.folder / "nginx", where.port, [where.verifier])
    gateway.prefix.mkdir(exist_ok=True)
    http = http.replace(
        f"listen 127.0.0.1:{where.port};", f"listen 127.0.0.1:{where.port}; listen 127.0.0.1:{where.h2} http2;"
    )
    if "events {" not in http:
        http = f"{gateway.render().partition('  access_log')[0]}\n  access_log off;\n{http}\n}}\n"
    return [find_nginx(), "-p", str(gateway.prefix), "-c", where.write("nginx.conf", http), "-e", "stderr"]


def nginx(block: str, where: Where) -> Command:
    return _nginx(where, replaced(
        block, ("unix:/run/m2m-verifier/verifier.sock", where.verifier), ("127.0.0.1:9000", where.api),
        ("127.0.0.1:8080", f"127.0.0.1:{where.port}"),
    ))  # fmt: skip


def ingress_nginx(block: str, where: Where) -> Command:
    """As its template renders the annotations; `verifier/demo/templates.py` names the source."""
    annotations = objects(block)["Ingress"]["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    listed = annotations.get(prefix + "auth-response-headers", "")
    auth = annotations.get(prefix + "auth-url", "").partition(":8000")[2] or None
    locations = [Location("/", auth), Location(WELL_KNOWN, backend="verifier")]
    gateway = Gateway(
        where.folder / "nginx", where.port, [where.verifier], {"api": where.api}, locations,
        [name.strip() for name in listed.split(",") if name.strip()],
    )  # fmt: skip
    return _nginx(where, gateway.render())


def _upgrade_map(where: Where, servers: str) -> str:
    return f"""
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{where.port};
    location {WELL_KNOWN} {{ proxy_set_header Host $http_host; proxy_pass http://{where.verifier}; }}
{servers}
  }}
"""


def nginx_ingress_controller(block: str, where: Where) -> Command:
    """F5: the externalAuth policy and its route, as nginx.virtualserver.tmpl renders them."""
    found = objects(block)
    auth = found["Policy"]["spec"]["externalAuth"]
    route = found["VirtualServer"]["spec"]["routes"][0]
    internal = f"/_external_auth{auth['authURI']}"
    common = """
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Host $host;"""
    guard = f"auth_request {internal};" if route.get("policies") else ""
    return _nginx(where, _upgrade_map(where, f"""
    location {route["path"]} {{
      {route["location-snippets"]}
      {guard}
      {common}
      proxy_pass http://{where.api};
    }}
    location {internal} {{
      internal;
      {auth["authSnippets"] or ""}
      {common}
      proxy_pass_request_headers on;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "0";
      proxy_set_header X-Scheme $scheme;
      client_max_body_size 0;
      proxy_pass http://{where.verifier}{auth["authURI"]};
    }}"""))  # fmt: skip


def nginx_gateway_fabric(block: str, where: Where) -> Command:
    """The ExternalAuth filter, as servers_template.go renders it."""
    filters = objects(block)["HTTPRoute"]["spec"]["rules"][0].get("filters") or []
    guard = asked = ""
    for external in (one["externalAuth"] for one in filters if one.get("type") == "ExternalAuth"):
        http = external["http"]
        guard = "auth_request /_ngf-internal-ext-auth;"
        for name in http["allowedResponseHeaders"]:
            variable = name.lower().replace("-", "_")
            guard += f"\n      auth_request_set $ext_auth_response_{variable} $upstream_http_{variable};"
            guard += f"\n      proxy_set_header {name} $ext_auth_response_{variable};"
        for name in http["allowedHeaders"]:
            asked += f'\n      proxy_set_header {name} "$http_{name.lower().replace("-", "_")}";'
        asked += f"\n      proxy_pass http://{where.verifier}{http.get('path', '')};"
    return _nginx(where, _upgrade_map(where, f"""
    location / {{
      {guard}
      proxy_http_version 1.1;
      proxy_set_header Host "$http_host";
      proxy_set_header X-Forwarded-For "$proxy_add_x_forwarded_for";
      proxy_set_header Upgrade "$http_upgrade";
      proxy_set_header Connection "$connection_upgrade";
      proxy_pass http://{where.api};
    }}
    location /_ngf-internal-ext-auth {{
      internal;
      proxy_set_header Host "$http_host";
      proxy_set_header Path "$request_uri";
      proxy_set_header Method "$request_method";
      proxy_set_header Authorization "$http_authorization";
      {asked}
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_pass_request_headers off;
    }}"""))  # fmt: skip


# --- Traefik, Caddy, HAProxy ---


def traefik(block: str, where: Where) -> Command:
    """The objects of its CRDs have the fields of a dynamic configuration file."""
    found = objects(block)
    static = found[""] | {"providers": {"file": {"filename": str(where.folder / "dynamic.yaml")}}}
    static["global"] = {"checkNewVersion": False, "sendAnonymousUsage": False}
    static["entryPoints"]["websecure"]["address"] = f"127.0.0.1:{where.port}"
    middleware, routes = found["Middleware"], (found["IngressRoute"], found["IngressRoute-metadata"])
    address = middleware["spec"]["forwardAuth"].get("address", "")
    middleware["spec"]["forwardAuth"]["address"] = address.replace(AUTH, where.verifier)
    http: dict[str, Any] = {
        "middlewares": {middleware["metadata"]["name"]: middleware["spec"]}, "routers": {}, "services": {},
    }  # fmt: skip
    for name, object_, backend in zip(("api", "metadata"), routes, (where.api, where.verifier), strict=True):
        [route] = object_["spec"]["routes"]
        http["services"][name] = {"loadBalancer": {"servers": [{"url": f"http://{backend}"}]}}
        http["routers"][name] = {
            "rule": route["match"].replace("Host(`api.example.com`)", "PathPrefix(`/`)"),
            "service": name,
            "middlewares": [one["name"] for one in route.get("middlewares") or []],
        }
    where.write("dynamic.yaml", yaml.safe_dump({"http": http}))
    return [str(BIN / "traefik"), "--configFile=" + where.write("static.yaml", yaml.safe_dump(static))]


def caddy(block: str, where: Where) -> Command:
    site = replaced(
        block, ("api.example.com {", f"http://:{where.port} {{\n\tbind 127.0.0.1"), ("127.0.0.1:8000", where.verifier),
        ("127.0.0.1:9000", where.api),
    )  # fmt: skip
    options = "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tservers {\n\t\tprotocols h1 h2c\n\t}\n}\n"
    return [str(BIN / "caddy"), "run", "--adapter", "caddyfile", "--config", where.write("Caddyfile", options + site)]


def haproxy(block: str, where: Where) -> Command:
    lua = os.environ[LUA]
    text = replaced(
        block, ("127.0.0.1:8080", f"127.0.0.1:{where.port}\n    bind 127.0.0.1:{where.h2} proto h2"),
        ("127.0.0.1:9000", where.api), ("127.0.0.1:8000", where.verifier),
    )  # fmt: skip
    around = f"""global
    lua-prepend-path {lua}/?/http.lua
    lua-prepend-path {lua}/?.lua
    lua-prepend-path /usr/share/lua/5.3/?.lua
    lua-load {lua}/auth-request.lua
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    default-server inter 200ms fall 1
"""
    return ["haproxy", "-db", "-f", where.write("haproxy.cfg", around + text)]


# --- Envoy, and the controllers that render its filter ---


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
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}


def _ext_authz(
    where: Where,
    prefix: str,
    asked: list[str],
    passed: list[str],
    *,
    is_on: bool = True,
    action: str = "ALLOW",
    status: int = 403,
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
        "common_http_protocol_options": {"headers_with_underscores_action": action},
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
        is_on=bool(spec["targetRefs"]), action="REJECT_REQUEST",
        status=spec["extAuth"]["statusOnError"],
    )  # fmt: skip


def istio(block: str, where: Where) -> Command:
    found = objects(block)
    [provider] = found[""]["extensionProviders"]
    http, spec = provider["envoyExtAuthzHttp"], found["AuthorizationPolicy"]["spec"]
    is_on = spec.get("action") == "CUSTOM" and spec.get("provider") == {"name": provider["name"]}
    return _ext_authz(
        where, http.get("pathPrefix", ""), http["includeRequestHeadersInCheck"], http["headersToUpstreamOnAllow"],
        is_on=is_on and "selector" in spec and "rules" in spec, status=int(http["statusOnError"]),
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


RENDER: dict[str, Render] = {
    "nginx": nginx,
    "ingress-nginx": ingress_nginx,
    "nginx-ingress-controller": nginx_ingress_controller,
    "nginx-gateway-fabric": nginx_gateway_fabric,
    "traefik": traefik,
    "caddy": caddy,
    "envoy": envoy,
    "envoy-gateway": envoy_gateway,
    "istio": istio,
    "gateway-api": gateway_api,
    "cilium": gateway_api,
    "haproxy": haproxy,
}
