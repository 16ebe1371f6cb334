"""Two MCP servers in one process: /mcp reads reports, /mcp/admin publishes them. No line is about authentication.

Two URLs, because the verifier decides by URL and method: it never sees the body, in which the tool's name is.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field
from starlette.applications import Starlette

MAX_REPORTS = 100
ReportName = Annotated[str, Field(max_length=100)]

reading, publishing = MCPServer("reports"), MCPServer("reports-admin")
reports: dict[str, str] = {}
changed = anyio.Event()


@reading.tool()
def list_reports() -> list[str]:
    """The names of all reports."""
    return sorted(reports)


@reading.tool()
async def wait_for_report(name: ReportName, context: Context) -> str:
    """The text of a report, once it is published."""
    while name not in reports:
        waiting = changed
        await context.report_progress(0, message="not published yet")
        await waiting.wait()
    return reports[name]


@publishing.tool()
def publish_report(name: ReportName, text: Annotated[str, Field(max_length=10_000)], context: Context) -> str:
    """Publish a report in the name of the caller, who is known from the verifier."""
    global changed
    if len(reports) >= MAX_REPORTS and name not in reports:
        raise ValueError(f"there are {MAX_REPORTS} reports already")
    author: str = (context.headers or {}).get("x-m2m-client-id", "")
    reports[name] = f"{text} ({author})"
    changed.set()
    changed = anyio.Event()
    return author


def application(host: str) -> Starlette:
    """The ASGI application. `host` is the name in the URL that agents use: requests for others are refused."""
    security = TransportSecuritySettings(allowed_hosts=[host], allowed_origins=[f"https://{host}"])
    routes = []
    for server, path in ((reading, "/mcp"), (publishing, "/mcp/admin")):
        routes += server.streamable_http_app(streamable_http_path=path, transport_security=security).routes

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with reading.session_manager.run(), publishing.session_manager.run():
            yield

    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
