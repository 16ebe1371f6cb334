"""The floor under every Python side: uvicorn handing out one fixed answer, with the headers of an allowed request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"x-m2m-client-id", b"5se2sfc6cw3vcspw4fxyfa2nea"),
        (b"x-m2m-scope", b"https://api.lab.informationcart.com/read https://api.lab.informationcart.com/write"),
        (b"x-m2m-role", b""),
        (b"x-m2m-issuer", b"homelab"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"0"),
    ],
}
BODY: Message = {"type": "http.response.body", "body": b""}


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "http":
        await send(START)
        await send(BODY)
