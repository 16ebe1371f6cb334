"""One running application for each configuration, shared: no decision depends on an earlier one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from .world import CONFIGURATIONS, World

# Bounded, so that `make test` stays quick; deadlines would only measure how busy the machine is.
_common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("security", _common, max_examples=int(os.environ.get("EXAMPLES", "200")))


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """Gives the application of a configuration's name, started at its first use."""
    with ExitStack() as stack:
        started: dict[str, World] = {}

        def world(name: str) -> World:
            if name not in started:
                made = World(CONFIGURATIONS[name], tmp_path_factory.mktemp(name))
                started[name] = stack.enter_context(made)
            return started[name]

        yield world


@pytest.fixture
def main(worlds: Callable[[str], World]) -> World:
    """The application with all issuers and policies."""
    return worlds("main")
