"""The API behind nginx in the demo: it answers every request with the identity headers that it received."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_SHOWN = ("x-m2m-", "x-user-", "x-tenant-")  # never Authorization: answers end up in terminals and logs
_SPELLING = {"m2m": "M2M", "id": "ID"}


async def api(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: 200 for any method and path, and JSON of both and of the identity headers, repeated ones joined by `, `."""
    request = Request(scope)
    identity: dict[str, str] = {}
    for name, value in request.headers.items():
        if name.startswith(_SHOWN):
            spelled = "-".join(_SPELLING.get(part, part.capitalize()) for part in name.split("-"))
            identity[spelled] = f"{identity[spelled]}, {value}" if spelled in identity else value
    answer = {"method": request.method, "path": scope["raw_path"].decode("latin-1"), "headers": identity}
    await Response(json.dumps(answer, indent=2) + "\n", media_type="application/json")(scope, receive, send)
