"""nginx, and what the controllers that render `auth_request` make of their objects."""

from __future__ import annotations

from tests.proxies.where import Command, Where, objects, replaced
from verifier.demo.nginx import Gateway, Location, find_nginx
from verifier.policy.resources import WELL_KNOWN


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
