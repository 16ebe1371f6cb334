"""Where a proxy runs in a test, and the printed block as objects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BIN = Path(sys.executable).parent
AUTH = "m2m-verifier.auth.svc.cluster.local:8000"  # the verifier's address in a cluster, as the blocks have it


@dataclass(frozen=True)
class Where:
    """Addresses (`host:port`) and a folder for one run. ``h2`` is a port for HTTP/2 without TLS, perhaps the same."""

    folder: Path
    port: int
    h2: int
    verifier: str
    api: str

    def write(self, name: str, text: str) -> str:
        """Write a file of the proxy; its path."""
        (self.folder / name).write_text(text)
        return str(self.folder / name)


Command = list[str]
Render = Callable[[str, Where], Command]


def replaced(block: str, *pairs: tuple[str, str]) -> str:
    """The block with the addresses of a test. Those that a removed line had are gone."""
    for shown, used in pairs:
        block = block.replace(shown, used)
    return block


def objects(block: str) -> dict[str, dict[str, Any]]:
    """Kubernetes objects by kind, those about the metadata document as kind + "-metadata"; others by ""."""
    found: dict[str, dict[str, Any]] = {}
    for document in yaml.safe_load_all(block):
        is_metadata = str(document.get("metadata", {}).get("name", "")).endswith("-metadata")
        found[document.get("kind", "") + "-metadata" * is_metadata] = document
    return found
