"""Following the file on disk: which changes count, and which are refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.config.support import MakeConfig
from tests.unit.support import SigningKey, jwks
from verifier.config import Config, ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.config.reload import Watch, follow


@pytest.fixture
def watched(make_config: MakeConfig, lab: dict[str, Any]) -> tuple[Watch, Path]:
    """A valid file, and what watches it."""
    config = make_config({**lab, "leeway": 1})
    assert config.path is not None
    return Watch(config), config.path


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


@pytest.mark.parametrize("touch", [False, True], ids=["as it is", "touched"])
def test_a_file_with_the_same_content_is_not_read_again(watched: tuple[Watch, Path], touch: bool) -> None:
    watch, path = watched
    if touch:
        os.utime(path, (1, 1))

    assert watch() is None


def test_a_changed_file_is_read_once(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    rewrite(path, leeway=2)
    changed = watch()

    assert changed is not None
    assert changed.leeway == 2
    assert watch() is None


@pytest.mark.parametrize("content", ["leeway: -1", "[" * 10_000], ids=["wrong", "nested too deeply"])
def test_a_broken_file_is_refused_once_and_read_once_it_is_corrected(watched: tuple[Watch, Path], content: str) -> None:
    watch, path = watched
    good = path.read_text()
    path.write_text(content)
    with pytest.raises(ConfigError):
        watch()
    assert watch() is None
    path.write_text(good)

    assert watch() is not None


def test_a_missing_file_is_refused_once_and_read_when_it_exists_again(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    good = path.read_text()
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        watch()
    assert watch() is None
    path.write_text(good)

    assert watch() is not None


def test_a_configmaps_symlink_swap_is_a_change(tmp_path: Path, lab: dict[str, Any]) -> None:
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "m2m.yaml").write_text(yaml.safe_dump({**lab, "leeway": number}))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "m2m.yaml").symlink_to("..data/m2m.yaml")
    watch = Watch(load(tmp_path / "m2m.yaml", Environment()))
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    changed = watch()

    assert changed is not None
    assert changed.leeway == 2


def test_a_changed_key_file_is_a_change(
    make_config: MakeConfig, tmp_path: Path, signer: SigningKey, other_signer: SigningKey
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(jwks(signer))
    issuer = {"name": "lab", "issuer": "https://issuer.example", "audience": "any", "jwks_file": "keys.json"}
    watch = Watch(make_config({"issuers": [issuer]}))
    assert watch() is None
    keys.write_bytes(jwks(other_signer))
    changed = watch()

    assert changed is not None
    assert changed.issuers[0].jwks == jwks(other_signer)


class Follower:
    """What was put into force, and how often a version was refused."""

    def __init__(self) -> None:
        self.taken: list[Config] = []
        self.refused = 0
        self.failures: list[Exception] = []

    async def take(self, config: Config) -> None:
        if self.failures:
            raise self.failures.pop()
        self.taken.append(config)

    def refuse(self) -> None:
        self.refused += 1

    @contextlib.asynccontextmanager
    async def following(self, config: Config) -> AsyncIterator[None]:
        task = asyncio.create_task(follow(config, self.take, self.refuse))
        await asyncio.sleep(10)
        yield
        await asyncio.sleep(10)
        assert not task.done()
        task.cancel()


async def test_a_change_is_put_into_force(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config, follower = make_config(lab), Follower()
    assert config.path is not None
    async with follower.following(config):
        rewrite(config.path, leeway=3)

    assert ([taken.leeway for taken in follower.taken], follower.refused) == ([3], 0)


async def test_the_log_has_every_error_of_a_refused_change(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config, follower = make_config(lab), Follower()
    assert config.path is not None
    async with follower.following(config):
        rewrite(config.path, leeway=-1, audits="all")

    assert (follower.taken, follower.refused) == ([], 1)
    assert all(text in caplog.text for text in ("the old one stays in force", ": leeway: ", ": audits: "))


async def test_a_change_that_cannot_be_put_into_force_is_refused(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config, follower = make_config(lab), Follower()
    assert config.path is not None
    follower.failures.append(RuntimeError("a defect"))
    async with follower.following(config):
        rewrite(config.path, leeway=3)

    assert (follower.taken, follower.refused) == ([], 1)
