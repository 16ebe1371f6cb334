"""Following the file on disk: which changes count, and which are refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
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
from verifier.observe.metrics import Metrics


class Watched:
    """A configuration file and its watch, whose clock the test sets."""

    def __init__(self, config: Config, clock: Clock, read: Callable[[Path, Environment], Config] = load) -> None:
        assert config.path is not None
        self.path = config.path
        self._clock = clock
        self._watch = Watch(config, clock, read)

    def write(self, content: str | None = None, **changes: Any) -> None:
        """Write the file, or change some of its settings."""
        self.path.write_text(
            yaml.safe_dump(yaml.safe_load(self.path.read_text()) | changes) if changes else content or ""
        )

    def poll(self, seconds: float = 0) -> Any:
        """What the watch finds ``seconds`` from now."""
        self._clock.now += seconds
        return self._watch()

    def after(self, seconds: float) -> Any:
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

    assert watched.poll(0.1).leeway == 2
    assert watched.after(2) is None


def test_a_half_written_file_does_not_take_effect(watched: Watched) -> None:
    half = watched.path.read_text() + "audit: denied\n"
    for content in (half, half + "revoked: {clients: [etl]}\n"):
        watched.write(content)
        assert watched.after(1.9) is None

    assert watched.poll(0.1).revoked.clients == {"etl"}


def test_a_file_that_is_broken_or_missing_for_less_than_2_seconds_is_not_refused(watched: Watched) -> None:
    good = watched.path.read_text()
    watched.write("leeway: -1")
    assert watched.after(1) is None
    watched.path.unlink()
    assert watched.after(1) is None
    watched.write(good)

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
        watched.write(content)
    with pytest.raises(ConfigError, match=message):
        watched.after(2)
    assert watched.after(2) is None
    watched.write(good)

    assert watched.after(2) is not None


def test_a_file_that_never_settles_is_named_in_one_warning_and_read_later(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for leeway in range(2, 50):
        watched.write(leeway=leeway)
        assert watched.after(1) is None
        assert (str(watched.path) in caplog.text) is (leeway > 30)
    assert len(caplog.records) == 1

    assert watched.after(2).leeway == 49


def test_a_reload_keeps_the_addresses_also_where_a_variable_is_invalid(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2M_PORT", "tcp://10.96.0.1:80")
    watched.write(leeway=2)

    assert watched.after(2).listen.port == 8000


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

    assert watched.after(2).leeway == 4


def test_a_configmaps_symlink_swap_is_a_change(tmp_path: Path, lab: dict[str, Any], clock: Clock) -> None:
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "m2m.yaml").write_text(yaml.safe_dump({**lab, "leeway": number}))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "m2m.yaml").symlink_to("..data/m2m.yaml")
    watched = Watched(load(tmp_path / "m2m.yaml", Environment()), clock)
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")

    assert watched.after(2).leeway == 2


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

    assert with_key_file.after(2).issuers[0].jwks == jwks(other_signer)


def test_a_key_file_that_the_new_version_names_must_be_complete_too(
    with_key_file: Watched, tmp_path: Path, signer: SigningKey, other_signer: SigningKey
) -> None:
    (tmp_path / "new.json").write_bytes(jwks(signer))
    with_key_file.write(**issuer(jwks_file="new.json"))
    assert with_key_file.after(1.9) is None
    (tmp_path / "new.json").write_bytes(jwks(signer, other_signer))
    assert with_key_file.after(1.9) is None

    assert with_key_file.poll(0.1).issuers[0].jwks == jwks(signer, other_signer)


def test_a_corrected_key_file_ends_a_refusal(with_key_file: Watched, tmp_path: Path, signer: SigningKey) -> None:
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        with_key_file.after(2)
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert with_key_file.after(2) is not None


@pytest.mark.parametrize(
    ("written", "failure", "taken", "messages"),
    [
        ("leeway: 3", None, [3], []),
        ("leeway: -1\naudits: all", None, [], ["the old one stays in force", ": leeway: ", ": audits: "]),
        ("leeway: 3", RuntimeError("a defect"), [], ["the old one stays in force", "RuntimeError"]),
    ],
    ids=["valid", "broken", "a defect"],
)
async def test_a_change_is_put_into_force_or_refused_with_every_error_in_the_log(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture,
    written: str, failure: Exception | None, taken: list[float], messages: list[str],
) -> None:  # fmt: skip
    found: list[float] = []
    metrics = Metrics()

    async def take(config: Config) -> None:
        if failure:
            raise failure
        found.append(config.leeway)

    config = make_config(lab)
    assert config.path is not None
    clock = asyncio.get_running_loop().time
    following = asyncio.create_task(follow(config, take, metrics, clock))
    await asyncio.sleep(10)
    config.path.write_text(f"{config.path.read_text()}\n{written}")
    await asyncio.sleep(10)

    assert not following.done()
    following.cancel()
    assert found == taken
    for result, count in (("success", len(taken)), ("failure", 0 if taken else 1)):
        assert metrics.registry.get_sample_value("m2m_verifier_config_reloads_total", {"result": result}) == count
    assert all(message in caplog.text for message in messages)
