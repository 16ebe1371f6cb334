"""What all tests of proxies stand on: `make proxies` installs the programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import lab as lab
from tests.e2e.stage import Api, Serve, configuration, entry
from tests.proxies.stage import Stage
from tests.proxies.table import CONFIGURATION
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background


@pytest.fixture(scope="session")
def parts(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Issuer, API and verifier; no proxy changes them."""
    folder = tmp_path_factory.mktemp("proxies")
    with (
        Background(Api(), websockets=True) as api,
        Serve(configuration(entry(lab), **CONFIGURATION), folder) as serve,
    ):
        yield Stage(serve, lab, api, folder)
