from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.server import CACHE, ApiServer


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A started API server with the custom resource definitions that the manifests use."""
    with ApiServer(tmp_path_factory.mktemp("api-server")) as server:
        definitions = [
            f"--filename={path}" for path in sorted((CACHE / "crds").glob("*.yaml")) if "vap" not in path.name
        ]
        server.kubectl("apply", "--server-side", *definitions)
        server.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield server


@pytest.fixture(scope="session")
def helm() -> str:
    """The program that the machine or `make tools` has."""
    tools = Path(__file__).parents[2] / ".tools" / "bin"
    return shutil.which("helm", path=f"{os.environ['PATH']}:{tools}") or pytest.fail("no helm: run `make tools`")
