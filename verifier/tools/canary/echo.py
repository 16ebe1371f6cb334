"""The echo endpoint behind the guard: it answers with the identity headers that reached it."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from verifier import strict_json

MAX_HEADERS = 500
MAX_QUERY = 200  # characters


def normal(name: str) -> str:
    """A header's name as WSGI and CGI applications compare it: ``X_M2M_Role`` is ``X-M2M-Role``."""
    return name.lower().replace("_", "-")


def echo_app(names: Iterable[str]) -> Starlette:
    """Answers any GET with the query and the headers of these names, underscores included."""
    shown = frozenset(map(normal, names))

    async def echo(request: Request) -> JSONResponse:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
        seen = [pair for pair in headers if normal(pair[0]) in shown]
        answer = {"query": request.url.query[:MAX_QUERY], "headers": seen[:MAX_HEADERS]}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    return Starlette(routes=[Route("/{path:path}", echo)])


def parse(body: bytes, query: str) -> list[tuple[str, str]] | None:
    """The headers in an answer to the request with this query, None where it is something else."""
    try:
        answer = strict_json.parse_object(body)
        if answer["query"] != query:
            return None
        return [(normal(str(name)), str(value)) for name, value in answer["headers"]]
    except (ValueError, KeyError, TypeError):
        return None
