"""Following the file on disk: which changes count, and which are refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.config.support import MakeConfig, issuer
from tests.unit.support import Clock, SigningKey, jwks
from verifier.config import Config, ConfigError
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.config.reload import Watch, follow


class Watched:
    """A configuration file and its watch, whose clock the test sets."""

    def __init__(self, config: Config, clock: Clock, read: Callable[[Path, Environment], Config] = load) -> None:
        assert config.path is not None
        self.path = config.path
        self._clock = clock
        self._watch = Watch(config, clock, read)

    def write(self, **changes: Any) -> None:
        rewrite(self.path, **changes)

    def poll(self, seconds: float = 0) -> Config | None:
        """What the watch finds ``seconds`` from now."""
        self._clock.now += seconds
        return self._watch()

    def after(self, seconds: float) -> Config | None:
        """What the watch finds ``seconds`` after it has seen the files as they are now."""
        assert self.poll() is None
        return self.poll(seconds)


@pytest.fixture
def watched(make_config: MakeConfig, lab: dict[str, Any], clock: Clock) -> Watched:
    return Watched(make_config({**lab, "leeway": 1}), clock)


@pytest.mark.parametrize("touch", [False, True], ids=["as it is", "touched"])
def test_a_file_with_the_same_content_is_not_read_again(watched: Watched, touch: bool) -> None:
    if touch:
        os.utime(watched.path, (1, 1))

    assert watched.after(2) is None


def test_a_changed_file_is_read_once_after_2_seconds_without_a_change(watched: Watched) -> None:
    watched.write(leeway=2)
    assert watched.after(1.9) is None
    changed = watched.poll(0.1)

    assert changed is not None
    assert changed.leeway == 2
    assert watched.after(2) is None


def test_a_half_written_file_does_not_take_effect(watched: Watched) -> None:
    half = watched.path.read_text() + "audit: denied\n"
    watched.path.write_text(half)
    assert watched.after(1.9) is None
    watched.path.write_text(half + "revoked: {clients: [etl]}\n")
    assert watched.after(1.9) is None
    changed = watched.poll(0.1)

    assert changed is not None
    assert changed.revoked.bare_clients == {"etl"}


def test_a_file_that_is_broken_or_missing_for_less_than_2_seconds_is_not_refused(watched: Watched) -> None:
    good = watched.path.read_text()
    watched.path.write_text("leeway: -1")
    assert watched.after(1) is None
    watched.path.unlink()
    assert watched.after(1) is None
    watched.path.write_text(good)

    assert watched.after(3) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("leeway: -1", "leeway"), ("[" * 10_000, "m2m"), (None, "No such file")],
    ids=["wrong", "nested too deeply", "missing"],
)
def test_a_broken_file_is_refused_once_and_read_when_it_is_corrected(
    watched: Watched, content: str | None, message: str
) -> None:
    good = watched.path.read_text()
    watched.path.unlink()
    if content is not None:
        watched.path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        watched.after(2)
    assert watched.after(2) is None
    watched.path.write_text(good)

    assert watched.after(2) is not None


def test_a_file_that_never_settles_is_named_in_one_warning_and_read_later(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for leeway in range(2, 50):
        watched.write(leeway=leeway)
        assert watched.after(1) is None
        assert (str(watched.path) in caplog.text) is (leeway > 30)
    assert len(caplog.records) == 1
    changed = watched.after(2)

    assert changed is not None
    assert changed.leeway == 49


def test_a_reload_keeps_the_addresses_also_where_a_variable_is_invalid(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2M_PORT", "tcp://10.96.0.1:80")
    watched.write(leeway=2)
    changed = watched.after(2)

    assert changed is not None
    assert changed.listen.port == 8000


@pytest.mark.parametrize("breaks", [False, True], ids=["valid", "broken"])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    make_config: MakeConfig, lab: dict[str, Any], clock: Clock, breaks: bool
) -> None:
    def read_late(path: Path, environment: Environment) -> Config:
        if late:
            watched.write(**late.pop())
        return load(path, environment)

    late = [{"leeway": -1 if breaks else 3}]
    watched = Watched(make_config(lab), clock, read_late)
    watched.write(leeway=2)
    assert watched.after(2) is None
    watched.write(leeway=4)
    changed = watched.after(2)

    assert changed is not None
    assert changed.leeway == 4


def test_a_configmaps_symlink_swap_is_a_change(tmp_path: Path, lab: dict[str, Any], clock: Clock) -> None:
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "m2m.yaml").write_text(yaml.safe_dump({**lab, "leeway": number}))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "m2m.yaml").symlink_to("..data/m2m.yaml")
    watched = Watched(load(tmp_path / "m2m.yaml", Environment()), clock)
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    changed = watched.after(2)

    assert changed is not None
    assert changed.leeway == 2


def test_a_pipe_is_not_read_again(tmp_path: Path, lab: dict[str, Any], clock: Clock) -> None:
    path = tmp_path / "m2m.yaml"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(load, path, Environment())
        path.write_text(yaml.safe_dump(lab))
        watched = Watched(reading.result(), clock)

    assert watched.after(2) is None


@pytest.fixture
def with_key_file(make_config: MakeConfig, tmp_path: Path, signer: SigningKey, clock: Clock) -> Watched:
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    return Watched(make_config(issuer(jwks_file="keys.json")), clock)


def test_a_changed_key_file_is_a_change(with_key_file: Watched, tmp_path: Path, other_signer: SigningKey) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(other_signer))
    changed = with_key_file.after(2)

    assert changed is not None
    assert changed.issuers[0].jwks == jwks(other_signer)


def test_a_key_file_that_the_new_version_names_must_be_complete_too(
    with_key_file: Watched, tmp_path: Path, signer: SigningKey, other_signer: SigningKey
) -> None:
    (tmp_path / "new.json").write_bytes(jwks(signer))
    with_key_file.write(**issuer(jwks_file="new.json"))
    assert with_key_file.after(1.9) is None
    (tmp_path / "new.json").write_bytes(jwks(signer, other_signer))
    assert with_key_file.after(1.9) is None
    changed = with_key_file.poll(0.1)

    assert changed is not None
    assert changed.issuers[0].jwks == jwks(signer, other_signer)


def test_a_corrected_key_file_ends_a_refusal(with_key_file: Watched, tmp_path: Path, signer: SigningKey) -> None:
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        with_key_file.after(2)
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert with_key_file.after(2) is not None


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


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
        task = asyncio.create_task(follow(config, self.take, self.refuse, asyncio.get_running_loop().time))
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
