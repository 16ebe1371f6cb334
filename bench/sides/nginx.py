"""nginx in its three parts here: in front with auth_request, as a floor, and as the API behind all sides.

The front has one port for each way to reach each verifier, so that one process serves every comparison.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.servers import ServerSpec
from bench.sides.context import Context

IDENTITY = ("client_id", "scope", "role", "issuer")


@dataclass(frozen=True)
class Front:
    """One `server` block: a verifier (HOST:PORT or unix:PATH, None: no auth), and how nginx connects to it.

    `cache`: nginx keeps answers as ingress-nginx does where an Ingress sets `auth-cache-key` to token, method and URI
    (rootfs/etc/nginx/template/nginx.tmpl of kubernetes/ingress-nginx, controller 1.15). Left out is the Lua code that
    hashes the key there. `reading`: a directive about how nginx reads their files.
    """

    name: str
    verifier: str | None
    keepalive: bool = True
    cache: bool = False
    reading: str = ""


def binary() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"  # Debian keeps it off a user's PATH


def _server(context: Context, front: Front) -> str:
    port = context.ports[front.name]
    if front.verifier is None:
        return f"""
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_set_header Connection ""; proxy_pass http://api; }}
  }}"""
    upstream = front.name.replace("-", "_")
    sets = "\n".join(f"      auth_request_set ${name} $upstream_http_x_m2m_{name};" for name in IDENTITY)
    passes = "\n".join(f"      proxy_set_header X-M2M-{name.replace('_', '-').title()} ${name};" for name in IDENTITY)
    cache = (
        f"""
      proxy_cache auth_cache;
      proxy_cache_valid 200 202 401 5m;
      proxy_cache_key "api.lab.informationcart.com/{front.name}$http_authorization$request_method$request_uri";
      proxy_buffering on;
      {front.reading}"""
        if front.cache
        else ""
    )
    return f"""
  upstream {upstream} {{ server {front.verifier}; {"keepalive 64;" if front.keepalive else ""} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      auth_request /_auth;
{sets}
{passes}
      proxy_set_header Connection "";
      proxy_pass http://api;
    }}
    location = /_auth {{
      internal;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Connection "{"" if front.keepalive else "close"}";{cache}
      proxy_pass http://{upstream}/verify;
    }}
  }}"""


def _wrap(context: Context, name: str, http: str) -> Path:
    """A whole nginx.conf that needs no other file and no particular user."""
    folder = context.folder(f"nginx-{name}")
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""  # else nobody, and no socket
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"""daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
{temporary}
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=auth_cache:10m max_size=128m inactive=30m use_temp_path=off;
  proxy_http_version 1.1;
  # The other sides never close a client's connection either.
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
{http}
}}
"""
    )
    return path


def _spec(context: Context, name: str, http: str, ready: tuple[int, str]) -> ServerSpec:
    config = _wrap(context, name, http)
    return ServerSpec(
        name=f"nginx-{name}", argv=[binary(), "-e", "stderr", "-p", str(config.parent), "-c", str(config)], ready=ready
    )


def api(context: Context) -> ServerSpec:
    """The API that is protected, and the place where keys are fetched. It runs beside the load generator."""
    keys = context.folder("config") / "jwks.json"
    keys.write_text(json.dumps(context.tokens.jwks()))
    port = context.ports["api"]
    http = f"""
  server {{
    listen 127.0.0.1:{port};
    location / {{ add_header X-Seen-Client "$http_x_m2m_client_id"; return 200 '{{"order": 7}}'; }}
    location = /jwks.json {{ default_type application/json; alias {keys}; }}
  }}"""
    return _spec(context, "api", http, (port, "/"))


def floor(context: Context) -> ServerSpec:
    port = context.ports["nginx-floor"]
    http = f"server {{ listen 127.0.0.1:{port}; location / {{ return 200; }} }}"
    return _spec(context, "floor", http, (port, "/"))


def front(context: Context, fronts: tuple[Front, ...]) -> ServerSpec:
    upstream = f"  upstream api {{ server 127.0.0.1:{context.ports['api']}; keepalive 64; }}"
    http = upstream + "".join(_server(context, front) for front in (Front("front-plain", None), *fronts))
    return _spec(context, "front", http, (context.ports["front-plain"], "/"))
