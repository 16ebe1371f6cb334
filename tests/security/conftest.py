"""One running application for each configuration, shared: no decision depends on an earlier one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from .running_app import CONFIGURATIONS, RunningApp

# Bounded, so that the suite stays quick; a deadline would only measure how busy the machine is.
_common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("security", _common, max_examples=int(os.environ.get("EXAMPLES", "100")))


@pytest.fixture(scope="session")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningApp]]:
    """Gives the application of a configuration's name, started at its first use."""
    with ExitStack() as stack:
        started: dict[str, RunningApp] = {}

        def app(name: str) -> RunningApp:
            if name not in started:
                made = RunningApp(CONFIGURATIONS[name], tmp_path_factory.mktemp(name))
                started[name] = stack.enter_context(made)
            return started[name]

        yield app


@pytest.fixture
def main(apps: Callable[[str], RunningApp]) -> RunningApp:
    """The application with all issuers and policies."""
    return apps("main")
