"""What all tests of proxies stand on: `make proxies` installs the programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxies.stage import Api, Stage, stage
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background, bind, port_of


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Issuer, API and verifier; no proxy changes them."""
    listener = bind()
    issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
    with (
        Background(issuer.app, listener),
        Background(Api(), websockets=True) as api,
        stage(issuer, api, tmp_path_factory.mktemp("proxies")) as parts,
    ):
        yield parts
