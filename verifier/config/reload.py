"""Follows changes of the configuration on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from verifier.config import Config, ConfigError
from verifier.config.load import load

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.5  # seconds


class Watch:
    """Detects changes of the configuration file and of the key files that it names.

    It compares contents: a ConfigMap's symlink swap is a change, a new modification time is not. A file that is not a
    regular one, such as a pipe, is never read again.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seen = _contents_read(config)

    def __call__(self) -> Config | None:
        """The changed configuration, None without a change. Raises ConfigError, once for each broken version."""
        now = _contents_now(self._config)
        if now == self._seen:
            return None
        self._seen = now
        changed = load(self._config.path)
        self._config, self._seen = changed, _contents_read(changed)
        return changed


async def follow(config: Config, take: Callable[[Config], Awaitable[None]], refuse: Callable[[], None]) -> None:
    """Call ``take`` with each new configuration and ``refuse`` for each broken one, until cancelled."""
    watch = Watch(config)
    while config.path is not None:
        await asyncio.sleep(POLL_INTERVAL)
        try:
            changed = await asyncio.to_thread(watch)  # parsing takes milliseconds, an answer microseconds
            if changed is not None:
                await take(changed)
        except Exception as error:  # any failure: the old configuration stays in force
            refuse()
            problems = error.problems if isinstance(error, ConfigError) else [type(error).__name__]
            log.error(  # noqa: TRY400 - the problems name their place; a traceback would not help
                "the changed configuration is refused, the old one stays in force: %s", "; ".join(problems)
            )


def _key_files(config: Config) -> list[Path]:
    return [issuer.jwks_file for issuer in config.issuers if issuer.jwks_file is not None]


def _contents_read(config: Config) -> list[bytes]:
    return [config.content, *(issuer.jwks for issuer in config.issuers if issuer.jwks is not None)]


def _contents_now(config: Config) -> list[bytes]:
    files = [config.path, *_key_files(config)]
    if config.path is not None and config.path.exists() and not config.path.is_file():
        return _contents_read(config)
    return [_content(path) for path in files]


def _content(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path is not None else b""
    except OSError:
        return b""
