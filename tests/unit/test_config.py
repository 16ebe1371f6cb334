"""The configuration as plain objects: read by a process of its own, and watched for changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from tests.unit.support import SigningKey, jwks
from verifier.config import Config, ConfigError, NotReadError, Watch, read
from verifier.config.environment import Environment
from verifier.config.load import load

pytestmark = pytest.mark.usefixtures("no_environment")

MakeConfig = Callable[[str | dict[str, Any]], Config]
WriteConfig = Callable[[str | dict[str, Any]], Path]


def test_a_file_is_read(write_config: WriteConfig, lab: dict[str, Any]) -> None:
    path = write_config(lab)
    config = read(path)

    assert isinstance(config, Config)
    assert (config.path, config.issuers[0].name) == (path, "lab")


def test_every_error_of_a_file_is_told(write_config: WriteConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write_config("leeway: -1\nissuers: []\n"))

    assert len(caught.value.problems) == 2


def test_without_a_file_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTH_ISSUER", "https://issuer.example")

    assert read(None).issuers[0].name == "oauth"


def test_who_reads_makes_way_for_who_answers_and_a_terminals_ctrl_c_is_not_for_it(
    tmp_path: Path, lab: dict[str, Any]
) -> None:
    path = tmp_path / "config.yaml"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, path)
        with path.open("w") as pipe:  # opens once somebody reads
            [reader] = (
                int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()
            )
            niceness = os.getpriority(os.PRIO_PROCESS, reader) - os.getpriority(os.PRIO_PROCESS, 0)
            session, group = os.getsid(reader), os.getpgid(reader)
            yaml.safe_dump(lab, pipe)

        assert isinstance(reading.result(), Config)
    assert niceness == 3
    assert session == os.getsid(0)  # Linux weighs sessions against each other, and niceness only within one
    assert group != os.getpgid(0)


@pytest.fixture
def watched(make_config: MakeConfig, lab: dict[str, Any]) -> tuple[Watch, Path]:
    """A good file, and who looks for its changes."""
    config = make_config({**lab, "leeway": 1})
    assert config.path is not None
    return Watch(config), config.path


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_a_file_that_stays_is_not_read_again(watched: tuple[Watch, Path]) -> None:
    assert watched[0]() is None


def test_a_file_that_is_only_touched_is_not_read_again(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    os.utime(path, (1, 1))

    assert watch() is None


def test_a_changed_file_is_read_once(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    rewrite(path, leeway=2)
    changed = watch()

    assert changed is not None
    assert changed.leeway == 2
    assert watch() is None


def test_a_broken_file_is_refused_once(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    rewrite(path, leeway=-1)

    with pytest.raises(ConfigError):
        watch()
    assert watch() is None


NO_PROCESS = Mock(side_effect=BlockingIOError(errno.EAGAIN, "no process can be made"))


@pytest.mark.parametrize(
    ("where", "changed_to"),
    [
        pytest.param("verifier.config.TIME_LIMIT", 0.0, id="too slow"),
        pytest.param("subprocess.Popen", NO_PROCESS, id="no process"),
        pytest.param("verifier.config._READER", "import os; os.kill(os.getpid(), 9)", id="killed"),
    ],
)
def test_a_change_that_nobody_got_to_read_is_tried_again(
    watched: tuple[Watch, Path], monkeypatch: pytest.MonkeyPatch, where: str, changed_to: Any
) -> None:
    watch, path = watched
    rewrite(path, leeway=2)
    with monkeypatch.context() as patched:
        patched.setattr(where, changed_to)
        with pytest.raises(NotReadError):
            watch()
    changed = watch()

    assert changed is not None
    assert changed.leeway == 2


def test_a_file_that_ends_its_reader_is_refused_once(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    path.write_text("[" * 10_000)

    with pytest.raises(ConfigError):
        watch()
    assert watch() is None


def test_a_mended_file_is_read(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    rewrite(path, leeway=-1)
    with pytest.raises(ConfigError):
        watch()
    rewrite(path, leeway=3)
    changed = watch()

    assert changed is not None
    assert changed.leeway == 3


def test_a_file_that_is_gone_is_refused_and_noticed_when_it_is_back(watched: tuple[Watch, Path]) -> None:
    watch, path = watched
    content = path.read_text()
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        watch()
    path.write_text(content)

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


def test_a_key_file_that_changes_is_a_change(
    make_config: MakeConfig, tmp_path: Path, signer: SigningKey, other_signer: SigningKey
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(jwks(signer))
    issuer = {"name": "lab", "issuer": "https://issuer.example", "audience": "any", "jwks_file": "keys.json"}
    watch = Watch(make_config({"issuers": [issuer]}))
    assert watch() is None
    keys.write_bytes(jwks(other_signer))

    assert watch() is not None
