"""Follows changes of the configuration on disk."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from verifier.clock import Clock
from verifier.config import Config, ConfigError
from verifier.config.environment import Environment, read_environment
from verifier.config.load import key_files, load
from verifier.observe.metrics import Metrics

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.25  # seconds
SETTLE = 2.0  # seconds without a change after which a version counts as completely written
UNSETTLED = 30.0  # seconds of changes after which a warning is logged

_Contents = dict[Path, bytes | None]
"""The configuration file and the key files that it names; None: it cannot be read."""


class Watch:
    """Detects changes of the configuration file and of the key files that it names.

    A version is read once all of these files have been unchanged for ``SETTLE`` seconds, so that a file that is written
    in place does not take effect by halves. Contents are compared: a ConfigMap's symlink swap is a change, a new
    modification time is not. A file that is not a regular one, such as a pipe, is never read again. ``clock`` gives
    seconds.
    """

    def __init__(
        self, config: Config, clock: Clock = time.monotonic, read: Callable[[Path, Environment], Config] = load
    ) -> None:
        self._path = config.path or Path()
        self._clock = clock
        self._read = read
        self._listen = vars(config.listen)
        self._handled = _contents_of(config)
        """The version that is in force or was refused."""
        self._latest, self._latest_since = self._handled, 0.0
        self._warn_at: float | None = None
        """When to warn that no version settles; None: nothing has changed."""

    def __call__(self) -> Config | None:
        """The configuration that was changed, None without a complete change.

        Raises ConfigError, once for each broken version.
        """
        now = self._clock()
        contents = self._contents_on_disk()
        if contents != self._latest:
            self._latest, self._latest_since = contents, now
        if contents == self._handled:
            self._warn_at = None
            return None
        if self._warn_at is None:
            self._warn_at = now + UNSETTLED
        if now - self._latest_since < SETTLE:
            if now >= self._warn_at:
                self._warn_at = math.inf
                log.warning(
                    "%s or a key file that it names has kept changing for %g s: it takes effect after %g s without a "
                    "change", self._path, UNSETTLED, SETTLE,
                )  # fmt: skip
            return None
        try:
            config = self._read(self._path, read_environment(self._listen))
        except Exception:
            if self._contents_on_disk() != contents:
                return None  # it changed while it was read: its next version counts
            self._handled, self._warn_at = contents, None
            raise
        if _contents_of(config) != contents:
            return None
        self._handled, self._warn_at = contents, None
        return config

    def _contents_on_disk(self) -> _Contents:
        content = self._content(self._path)
        return {self._path: content} | {path: self._content(path) for path in key_files(content, self._path.parent)}

    def _content(self, path: Path) -> bytes | None:
        try:
            if path.exists() and not path.is_file():
                return self._handled.get(path)
            return path.read_bytes()
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None


def _contents_of(config: Config) -> _Contents:
    keys = {issuer.jwks_file: issuer.jwks for issuer in config.issuers if issuer.jwks_file is not None}
    return {config.path or Path(): config.content, **keys}


async def follow(
    config: Config,
    take: Callable[[Config], Awaitable[None]],
    metrics: Metrics,
    clock: Clock = time.monotonic,
) -> None:
    """Call ``take`` with each new configuration, and count it or its refusal, until cancelled."""
    watch = Watch(config, clock)
    while config.path is not None:
        await asyncio.sleep(POLL_INTERVAL)
        try:
            changed = await asyncio.to_thread(watch)  # parsing takes milliseconds, an answer microseconds
            if changed is not None:
                await take(changed)
                metrics.count_reload(successful=True)
        except Exception as error:  # any failure: the old configuration stays in force
            metrics.count_reload(successful=False)
            problems = error.problems if isinstance(error, ConfigError) else [type(error).__name__]
            log.error(  # noqa: TRY400 - the problems name their place; a traceback would not help
                "the changed configuration is refused, the old one stays in force: %s", "; ".join(problems)
            )
