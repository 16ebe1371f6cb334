"""The bytes that each side is asked with: one source for wrk, for the open loop and for the checks."""

from __future__ import annotations

from bench.plan import API_PATH, Target

TOKEN = "@TOKEN@"
NUMBER = "@NUMBER@"  # 32 hex digits, another one for each request, as nginx's $request_id is

_AGENT = (
    "User-Agent: billing-agent/1.4 (python-httpx/0.28)\r\n"
    "Accept: application/json\r\n"
    f"Authorization: Bearer {TOKEN}\r\n"
)  # fmt: skip
_HOST = "Host: api.lab.informationcart.com\r\n"

# The rest of the subrequest in each dialect, as nginx, Traefik 3.7 and Envoy 1.40 were seen to send it.
_ASKED = {
    "/verify": (
        f"{_HOST}{_AGENT}"
        f"X-Request-ID: {NUMBER}\r\n"
        f"X-Original-URL: https://api.lab.informationcart.com{API_PATH}\r\n"
        "X-Original-Method: GET\r\n"
        "X-Real-IP: 203.0.113.7\r\n"
        "X-Forwarded-For: 203.0.113.7\r\n"
    ),
    "/forward-auth": (
        f"Host: 127.0.0.1:8000\r\n{_AGENT}"
        "X-Forwarded-For: 203.0.113.7\r\n"
        "X-Forwarded-Host: api.lab.informationcart.com\r\n"
        "X-Forwarded-Method: GET\r\n"
        "X-Forwarded-Port: 443\r\n"
        "X-Forwarded-Proto: https\r\n"
        f"X-Forwarded-Uri: {API_PATH}\r\n"
        "Accept-Encoding: gzip\r\n"
    ),
    "/ext-authz": (
        f"{_HOST}Content-Length: 0\r\n"
        f"Authorization: Bearer {TOKEN}\r\n"
        f"X-Request-ID: {NUMBER}\r\n"
        "X-Envoy-Internal: true\r\n"
        "X-Envoy-Expected-Rq-Timeout-Ms: 5000\r\n"
    ),
}


def direct_template(path: str, *, close: bool = False) -> str:
    """The subrequest as the proxy sends it whose dialect `path` names; nginx's for a path of no dialect.

    `close`: with the `Connection: close` that nginx sends where its upstream keeps no connections.
    """
    connection = "Connection: close\r\n" if close else ""
    asked = _ASKED.get("/" + path.split("/")[1], _ASKED["/verify"])
    return f"GET {path} HTTP/1.1\r\n{asked}{connection}\r\n"


def proxied_template() -> str:
    """What an agent sends to the API; the proxy makes the subrequest out of it."""
    return f"GET {API_PATH} HTTP/1.1\r\n{_HOST}{_AGENT}\r\n"


def template(target: Target, *, close: bool = False) -> str:
    """What a target is asked with; it holds TOKEN."""
    return proxied_template() if target.proxied else direct_template(target.path, close=close)


def render(template: str, token: str, number: int) -> bytes:
    return template.replace(TOKEN, token).replace(NUMBER, f"{number:032x}").encode()
