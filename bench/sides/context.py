"""What every side needs to know before it starts."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import BenchError, free_port
from bench.tokens import TokenSet

CACHE_SIZE = 10_000  # of ours, Envoy and fast-jwt; COLD cycles through more tokens than that
PYTHON_BIN = Path(sys.executable).parent


class Ports(dict[str, int]):
    """A free port for each name, chosen when first asked for."""

    def __missing__(self, name: str) -> int:
        port = free_port()
        while port in self.values():
            port = free_port()
        self[name] = port
        return port


@dataclass(frozen=True)
class Context:
    """One run: where it keeps its files, its tokens and its ports."""

    build: Path
    tokens: TokenSet
    before: Path | None = None  # the command of an older version
    ports: Ports = field(default_factory=Ports)

    @property
    def jwks_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}/jwks.json"

    def folder(self, name: str) -> Path:
        path = self.build / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def inside(package: str, *parts: str) -> Path:
    """A file that an installed package ships, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise BenchError(f"{package} is not installed: `make bench` installs it, or pip install -e '.[bench]'")
    return Path(found.origin).parent.joinpath(*parts)
