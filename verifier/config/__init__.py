"""A configuration that was found good, as plain objects.

Files are read by a process of its own: a worker then carries neither pydantic nor YAML, a fifth of its memory, and a
reload takes no time from the event loop.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from verifier.policy.policies import Policies, Revoked, Roles
from verifier.tokens.verify import IssuerRules

TIME_LIMIT = 30.0  # seconds to read a configuration
# Whoever answers requests on the same core goes first, not by far: on a busy one too a change has 5 s to be in force.
_READER = "import os, sys; os.nice(3); from verifier.config.load import main; sys.exit(main(sys.argv[1:]))"


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` has one line for each error, with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NotReadError(ConfigError):
    """Whoever was to read the configuration did not get to it: that says nothing about the configuration."""


@dataclass(frozen=True)
class Listen:
    """Where to answer, as the environment says; the command line may say otherwise."""

    host: str
    port: int
    metrics_port: int
    workers: int


@dataclass(frozen=True)
class Config:
    """The whole configuration. ``path`` None: it came from the environment alone."""

    path: Path | None
    listen: Listen
    issuers: tuple[IssuerRules, ...]
    policies: Policies
    roles: Roles
    revoked: Revoked
    headers: Mapping[str, str]
    """Response headers and the claims they show."""
    leeway: float
    """Seconds."""
    cache_size: int
    cache_ttl: float
    """Seconds."""
    max_header_bytes: int
    nginx_cache_ttl: int
    """Seconds; 0: no answer may be kept."""
    audit: str
    digest: bytes = b""
    """Of the file that was read: it may have changed since."""


def read(path: Path | None, waiting: AbstractContextManager[None] | None = None) -> Config:
    """The configuration of ``path``, else of M2M_CONFIG, else of the environment alone.

    While its reader, a process, is waited for, this is inside of ``waiting``.

    Raises:
        ConfigError: it cannot be used.
        NotReadError: its reader took too long, was killed or could not be started.
    """
    named = path or "configuration"
    command = [sys.executable, "-c", _READER, *([str(path)] if path else [])]
    try:
        # A group of its own: a terminal's Ctrl-C is for us, not for it. A session of its own would undo the niceness:
        # Linux weighs sessions against each other (sched(7), autogroup).
        with subprocess.Popen(  # noqa: S603 - our own interpreter and code; no shell reads the path
            command, stdout=subprocess.PIPE, process_group=0
        ) as reader:
            try:
                with waiting or nullcontext():
                    written, _ = reader.communicate(timeout=TIME_LIMIT)
            except BaseException:
                reader.kill()
                raise
    except subprocess.TimeoutExpired:
        raise NotReadError([f"{named}: not read within {TIME_LIMIT:g} s"]) from None
    except OSError as error:
        raise NotReadError([f"{named}: cannot be read now: {error.strerror}"]) from None
    if reader.returncode == 0:
        config: Config = pickle.loads(written)  # noqa: S301 - our own code wrote it, into a pipe that nobody else has
        return config
    try:
        raise ConfigError(json.loads(written))
    except ValueError:
        kind = NotReadError if reader.returncode < 0 else ConfigError  # killed; else the file's content ended it
        raise kind([f"{named}: could not be read (status {reader.returncode})"]) from None


class Watch:
    """Looks for a change on disk: of the configuration file, or of a key file that it names.

    Compares contents, so that a ConfigMap's symlink swap counts and a touched file does not.
    """

    def __init__(self, config: Config) -> None:
        self._take(config)

    def _take(self, config: Config) -> None:
        # Not as the file is now: a change that came after it was read is still to be taken. Key files are read later.
        self._config, self._seen = config, [config.digest, *self._key_files(config)]

    def __call__(self) -> Config | None:
        """The changed configuration, None if it is as it was.

        Raises ConfigError, once for each broken version; where nobody got to read it, the next call tries again.
        """
        now = [_digest_of(self._config.path), *self._key_files(self._config)]
        if now == self._seen:
            return None
        seen, self._seen = self._seen, now
        try:
            self._take(read(self._config.path))
        except NotReadError:
            self._seen = seen
            raise
        return self._config

    @staticmethod
    def _key_files(config: Config) -> list[bytes]:
        return [_digest_of(issuer.jwks_file) for issuer in config.issuers if issuer.jwks_file is not None]


def digest(content: bytes) -> bytes:
    """What tells one version of a file from another."""
    return hashlib.sha256(content).digest()


def _digest_of(path: Path | None) -> bytes:
    try:
        return digest(path.read_bytes()) if path is not None else b""
    except OSError:
        return b""
