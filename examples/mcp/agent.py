"""An agent that knows the URL of an MCP server, its own id and its own secret, and nothing else.

    AGENT_ID=… AGENT_SECRET=… [AGENT_ISSUER=…] python agent.py https://api.example.com/mcp [--publish NAME] [--legacy]

It prints each HTTP request, and what the tools answer, as one JSON object a line.
"""

import argparse
import json
import os
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken


class Memory:
    """Keeps the token for this process: a `TokenStorage`."""

    token: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The token, if there is one."""
        return self.token

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep the token."""
        self.token = tokens
        say(scope=tokens.scope)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """None: the client is registered with the issuer by hand."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Never called: see above."""


def say(**what: Any) -> None:
    """Print one line."""
    print(json.dumps(what), flush=True)


async def show_request(response: httpx2.Response) -> None:
    """Print one HTTP request and its status."""
    session = "mcp-session-id" in response.request.headers
    say(request=f"{response.request.method} {response.request.url.path} {response.status_code}", session=session)


async def run(url: str, mode: str, publish: str | None) -> None:
    """List the tools and the reports; where `publish` names a report, wait for it, and publish it meanwhile."""
    provider = ClientCredentialsOAuthProvider(
        server_url=url,
        storage=Memory(),
        client_id=os.environ["AGENT_ID"],
        client_secret=os.environ["AGENT_SECRET"],
        issuer=os.environ.get("AGENT_ISSUER"),  # else the MCP server decides who gets the secret
    )
    timeout = httpx2.Timeout(30, read=300)
    hooks: Any = {"response": [show_request]}
    async with (
        httpx2.AsyncClient(auth=provider, timeout=timeout, event_hooks=hooks) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as reader,
    ):
        say(tools=[tool.name for tool in (await reader.list_tools()).tools])
        say(reports=(await reader.call_tool("list_reports", {})).structured_content)
        if publish is not None:
            # The token is good for reading alone: the provider learns which scope is needed, and asks for it.
            async with Client(streamable_http_client(url + "/admin", http_client=http), mode=mode) as publisher:
                await wait_and_publish(reader, publisher, publish)


async def wait_and_publish(reader: Client, publisher: Client, name: str) -> None:
    """Wait for a report; publish it once the server has said that there is none."""
    is_waiting = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        say(progress=message)
        is_waiting.set()

    async def wait() -> None:
        waited = await reader.call_tool("wait_for_report", {"name": name}, progress_callback=on_progress)
        say(report=waited.structured_content)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await is_waiting.wait()
        await publisher.call_tool("publish_report", {"name": name, "text": "all is well"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--publish", metavar="NAME", help="publish a report, which needs a further scope")
    parser.add_argument("--legacy", action="store_true", help="the protocol before 2026-07-28, with sessions")
    options = parser.parse_args()
    anyio.run(run, options.url, "legacy" if options.legacy else "auto", options.publish)
