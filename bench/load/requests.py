"""The bytes that each side is asked with: one source for wrk, for the open loop and for the checks."""

from __future__ import annotations

TOKEN = "@TOKEN@"
NUMBER = "@NUMBER@"  # 32 hex digits, another one for each request, as nginx's $request_id is

API_PATH = "/orders/7?expand=items"


def direct_template(path: str, *, close: bool = False) -> str:
    """The subrequest as nginx sends it: the client's own headers, then those that auth_request adds.

    `close`: with the `Connection: close` that nginx sends where its upstream keeps no connections.
    """
    connection = "Connection: close\r\n" if close else ""
    return (
        f"GET {path} HTTP/1.1\r\n"
        "Host: api.lab.informationcart.com\r\n"
        f"{connection}"
        "User-Agent: billing-agent/1.4 (python-httpx/0.28)\r\n"
        "Accept: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\n"
        f"X-Request-ID: {NUMBER}\r\n"
        f"X-Original-URL: https://api.lab.informationcart.com{API_PATH}\r\n"
        "X-Original-Method: GET\r\n"
        "X-Real-IP: 203.0.113.7\r\n"
        "X-Forwarded-For: 203.0.113.7\r\n"
        "\r\n"
    )


def proxied_template() -> str:
    """What an agent sends to the API; the proxy makes the subrequest out of it."""
    return (
        f"GET {API_PATH} HTTP/1.1\r\n"
        "Host: api.lab.informationcart.com\r\n"
        "User-Agent: billing-agent/1.4 (python-httpx/0.28)\r\n"
        "Accept: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\n"
        "\r\n"
    )


def render(template: str, token: str, number: int) -> bytes:
    return template.replace(TOKEN, token).replace(NUMBER, f"{number:032x}").encode()
