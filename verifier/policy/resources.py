"""Protected resource metadata (RFC 9728): where an agent that was refused learns who issues tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Resource:
    """A policy's ``resource``. ``scopes_supported`` are as a token holds them."""

    url: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where its document is served: the well-known prefix before the resource's own path (RFC 9728 section 3.1)."""
        return WELL_KNOWN + urlsplit(self.url).path.removesuffix("/")

    @property
    def host(self) -> str:
        """The resource's host, in lower case, with its port where that is written."""
        return urlsplit(self.url).netloc.lower()

    @property
    def origin(self) -> str:
        """Scheme and authority."""
        return "{0.scheme}://{0.netloc}".format(urlsplit(self.url))

    @property
    def metadata_url(self) -> str:
        """The document's own URL, for challenges (RFC 9728 section 5.1)."""
        return self.origin + self.path

    def document(self) -> dict[str, Any]:
        """The metadata (RFC 9728 section 2)."""
        document: dict[str, Any] = {
            "resource": self.url,
            "authorization_servers": list(self.authorization_servers),
            "bearer_methods_supported": ["header"],
        }
        if self.scopes_supported:
            document["scopes_supported"] = list(self.scopes_supported)
        return document


class ResourceDocuments:
    """Documents by path; where several hosts share a path, by host as well."""

    def __init__(self, resources: list[Resource]) -> None:
        self._by_path: dict[str, list[Resource]] = {}
        for resource in resources:
            self._by_path.setdefault(resource.path, []).append(resource)

    def find(self, path: str, host: str) -> dict[str, Any] | None:
        """The document served at ``path`` for a request with that Host header, or None."""
        candidates = self._by_path.get(path.removesuffix("/"), [])
        same_host = [resource for resource in candidates if resource.host == host.lower()]
        found = same_host or (candidates if len({resource.url for resource in candidates}) == 1 else [])
        return found[0].document() if found else None
