"""Fixtures of the configuration's tests: its errors, and parts of a valid one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.config.support import MakeConfig, WriteConfig, issuer
from verifier.config import ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.policy.policies import Policy
from verifier.tokens.verify import IssuerRules


@pytest.fixture(autouse=True)
def _no_environment(no_environment: None) -> None:
    """No test here reads the variables of whoever runs it."""


@pytest.fixture
def problems(write_config: WriteConfig) -> Callable[[str | dict[str, Any]], list[str]]:
    """Each error of a file, without the name of the file's folder."""

    def find(content: str | dict[str, Any]) -> list[str]:
        path = write_config(content)
        with pytest.raises(ConfigError) as caught:
            load(path, Environment())
        return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]

    return find


@pytest.fixture
def rules(make_config: MakeConfig) -> Callable[..., IssuerRules]:
    """The rules of one issuer with changed settings; None leaves one out."""
    return lambda **changes: make_config(issuer(**changes)).issuers[0]


@pytest.fixture
def policy(make_config: MakeConfig, lab: dict[str, Any]) -> Callable[..., Policy]:
    """A policy of a configuration with one issuer."""
    return lambda **given: make_config({**lab, "policies": {"api": given}}).policies.by_name["api"]
