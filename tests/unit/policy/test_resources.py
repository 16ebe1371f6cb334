"""Protected resource metadata (RFC 9728)."""

from __future__ import annotations

import pytest

from verifier.policy.resources import Resource, ResourceDocuments

AS = ("https://issuer.example",)
WELL_KNOWN = "/.well-known/oauth-protected-resource"
MCP = "https://api.example/mcp"
OTHER = "https://b.example/mcp"


@pytest.mark.parametrize(
    ("url", "metadata_url"),
    [
        ("https://api.example", "https://api.example" + WELL_KNOWN),
        ("https://api.example/", "https://api.example" + WELL_KNOWN),
        (MCP, f"https://api.example{WELL_KNOWN}/mcp"),
        (MCP + "/", f"https://api.example{WELL_KNOWN}/mcp"),
        ("https://api.example:8443/a/b", f"https://api.example:8443{WELL_KNOWN}/a/b"),
    ],
)
def test_the_url_of_a_document_has_the_well_known_part_before_the_path(url: str, metadata_url: str) -> None:
    assert Resource(url, AS, ()).metadata_url == metadata_url


@pytest.mark.parametrize("scopes", [{}, {"scopes_supported": ["read", "write"]}], ids=str)
def test_the_document_names_resource_servers_and_scopes_where_there_are_any(scopes: dict[str, list[str]]) -> None:
    resource = Resource(MCP, AS, tuple(scopes.get("scopes_supported", ())))

    assert resource.document() == {
        "resource": MCP, "authorization_servers": [*AS], "bearer_methods_supported": ["header"], **scopes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "host", "urls", "found"),
    [
        pytest.param("/mcp", "api.example", [MCP], MCP, id="by path"),
        pytest.param("/mcp/", "api.example", [MCP], MCP, id="by path, with a final slash"),
        pytest.param("", "api.example", [MCP], None, id="no path"),
        pytest.param("/", "api.example", [MCP], None, id="the root"),
        pytest.param("/mcp/x", "api.example", [MCP], None, id="a longer path"),
        pytest.param("/MCP", "api.example", [MCP], None, id="another case"),
        pytest.param("/mcp", "verifier.svc:8000", [MCP], MCP, id="one resource, any host"),
        pytest.param("/mcp", "b.example", [MCP, OTHER], OTHER, id="a shared path: by host"),
        pytest.param("/mcp", "B.Example", [MCP, OTHER], OTHER, id="a shared path: by host in any case"),
        pytest.param("/mcp", "c.example", [MCP, OTHER], None, id="a shared path, another host: no guess"),
        pytest.param("/mcp", "c.example", [MCP, MCP], MCP, id="two policies with one resource"),
    ],
)
def test_a_document_is_found_by_path_and_by_host(path: str, host: str, urls: list[str], found: str | None) -> None:
    document = ResourceDocuments([Resource(url, AS, ()) for url in urls]).find(WELL_KNOWN + path, host)

    assert (document["resource"] if document else None) == found
