"""What several end-to-end tests stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stage import Api
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background, bind, port_of


@pytest.fixture(scope="session")
def api() -> Iterator[Background]:
    """The API behind nginx."""
    with Background(Api()) as running:
        yield running


@pytest.fixture(scope="session")
def lab() -> Iterator[Issuer]:
    """An issuer that always answers. Tests that change it start their own."""
    listener = bind()
    issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
    with Background(issuer.app, listener):
        yield issuer


@pytest.fixture
def token(lab: Issuer) -> str:
    """A token of that issuer."""
    return lab.mint(lab.machine_claims("etl", ["read"]))
