from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.server import BUILT, ApiServer
from tests.e2e.conftest import api as api
from tests.e2e.conftest import lab as lab
from tests.proxies.conftest import parts as parts


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A started API server with the custom resource definitions that the manifests use."""
    with ApiServer(tmp_path_factory.mktemp("api-server")) as server:
        definitions = [
            f"--filename={path}" for path in sorted((BUILT / "crds").glob("*.yaml")) if "vap" not in path.name
        ]
        server.kubectl("apply", "--server-side", *definitions)
        server.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield server
