"""What each proxy runs: `guard`'s block in the least configuration around it.

Each function takes the block as text, in which a test may have removed a line, and gives a command and its files.
Kubernetes objects are turned into what their controllers make of them; docs/proxies.md names the sources.
"""

from __future__ import annotations

import os
from typing import Any

import yaml

from tests.proxies.render_envoy import envoy, envoy_gateway, gateway_api, istio
from tests.proxies.render_nginx import ingress_nginx, nginx, nginx_gateway_fabric, nginx_ingress_controller
from tests.proxies.where import AUTH, BIN, Command, Render, Where, objects, replaced

LUA = "HAPROXY_AUTH_REQUEST"
"""The folder with auth-request.lua and haproxy-lua-http/http.lua, which no package has."""


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
