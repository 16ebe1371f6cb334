"""Protected resource metadata (RFC 9728)."""

from __future__ import annotations

import pytest

from verifier.policy.resources import Resource, ResourceDocuments

AS = ("https://issuer.example",)
WELL_KNOWN = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("url", "metadata_url"),
    [
        ("https://api.example", "https://api.example" + WELL_KNOWN),
        ("https://api.example/", "https://api.example" + WELL_KNOWN),
        ("https://api.example/mcp", f"https://api.example{WELL_KNOWN}/mcp"),
        ("https://api.example/mcp/", f"https://api.example{WELL_KNOWN}/mcp"),
        ("https://api.example:8443/a/b", f"https://api.example:8443{WELL_KNOWN}/a/b"),
    ],
)
def test_the_documents_url_has_the_well_known_part_before_the_path(url: str, metadata_url: str) -> None:
    assert Resource(url, AS, ()).metadata_url == metadata_url


def test_the_document_names_resource_servers_and_scopes() -> None:
    assert Resource("https://api.example/mcp", AS, ("read", "write")).document() == {
        "resource": "https://api.example/mcp",
        "authorization_servers": ["https://issuer.example"],
        "scopes_supported": ["read", "write"],
        "bearer_methods_supported": ["header"],
    }


def test_without_scopes_the_document_says_nothing_of_them() -> None:
    assert "scopes_supported" not in Resource("https://api.example/mcp", AS, ()).document()


def find(path: str, host: str = "api.example", *urls: str) -> str | None:
    document = ResourceDocuments([Resource(url, AS, ()) for url in urls]).find(path, host)
    return document["resource"] if document else None


MCP = "https://api.example/mcp"


@pytest.mark.parametrize("path", [WELL_KNOWN + "/mcp", WELL_KNOWN + "/mcp/"])
def test_a_document_is_found_by_its_path(path: str) -> None:
    assert find(path, "api.example", MCP) == MCP


@pytest.mark.parametrize("path", [WELL_KNOWN, WELL_KNOWN + "/", WELL_KNOWN + "/mcp/x", WELL_KNOWN + "/MCP"])
def test_another_path_has_no_document(path: str) -> None:
    assert find(path, "api.example", MCP) is None


def test_one_resource_is_found_whatever_the_host() -> None:
    assert find(WELL_KNOWN + "/mcp", "verifier.svc:8000", MCP) == MCP


@pytest.mark.parametrize("host", ["b.example", "B.Example"])
def test_resources_that_share_a_path_are_told_apart_by_host(host: str) -> None:
    assert find(WELL_KNOWN + "/mcp", host, MCP, "https://b.example/mcp") == "https://b.example/mcp"


def test_resources_that_share_a_path_are_not_guessed() -> None:
    assert find(WELL_KNOWN + "/mcp", "c.example", MCP, "https://b.example/mcp") is None


def test_two_policies_may_name_one_resource() -> None:
    assert find(WELL_KNOWN + "/mcp", "c.example", MCP, MCP) == MCP
