"""One running application for each configuration, shared: no decision depends on an earlier one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

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
        yield cache(lambda name: stack.enter_context(RunningApp(CONFIGURATIONS[name], tmp_path_factory.mktemp(name))))


@pytest.fixture
def main(apps: Callable[[str], RunningApp]) -> RunningApp:
    """The application with all issuers and policies."""
    return apps("main")
