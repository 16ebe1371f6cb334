"""``m2m-verifier canary``: asks through the real proxy, again and again, whether the guard still guards.

Its results are metrics and, on each change, a line of the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, Metric, ProcessCollector

from verifier.clock import Clock
from verifier.keys.fetch import FetchError
from verifier.tools.canary.checks import CHECKS, Outcome, Result, Round
from verifier.tools.canary.echo import echo_app
from verifier.tools.canary.exchange import client
from verifier.tools.canary.settings import Settings, load
from verifier.tools.canary.tokens import Tokens

__all__ = ["CHECKS", "Canary", "Outcome", "Result", "Settings", "load"]

log = logging.getLogger(__name__)

FAILED, NOT_CHECKED = 1, 2


class Canary:
    """Runs rounds of checks. ``echo`` is the application that shows what reaches the API."""

    def __init__(
        self, settings: Settings, *, clock: Clock = time.time, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._environment = environment
        self._tokens = Tokens(settings, clock, environment)
        self.echo = echo_app(settings.identity)
        self.results: dict[str, Result] = {}
        """Of the last round, by check."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        gauge = partial(Gauge, namespace="m2m_verifier_canary", registry=self._registry)
        by_check = partial(gauge, labelnames=["check"])
        self._success = by_check("check_success", "1: the check passed, 0: it failed; no series while it is unknown.")
        self._unknown = by_check("check_unknown", "1: the last round could not make the check.")
        self._last_run = gauge("last_run_timestamp_seconds", "End of the last round.")
        self._duration = gauge("round_duration_seconds", "Time of the last round.")
        for check in CHECKS:
            self._unknown.labels(check).set(1)

    async def repeat(self) -> None:
        """Rounds without an end, each ``interval`` seconds after the start of the one before."""
        while True:
            started, before = time.monotonic(), self.results
            await self.round()
            self._log_changes(before)
            await asyncio.sleep(max(0.0, self._settings.interval - (time.monotonic() - started)))

    async def round(self) -> None:
        """Make every check once; ``results`` and metrics then have what came of it."""
        started = time.monotonic()
        await self._tokens.renew()
        try:
            async with await client(self._settings.url, self._settings.ca_file, self._environment) as through:
                results = await Round(self._settings, self._tokens, through).results()
        except FetchError as error:  # no certificate authority, or no usable proxy variable
            results = dict.fromkeys(CHECKS, Result(Outcome.UNKNOWN, str(error)))
        self.results = results
        self._success.clear()
        for check, result in results.items():
            self._unknown.labels(check).set(result.outcome is Outcome.UNKNOWN)
            if result.outcome is not Outcome.UNKNOWN:
                self._success.labels(check).set(result.outcome is Outcome.PASS)
        self._duration.set(time.monotonic() - started)
        self._last_run.set(self._clock())

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return list(self._registry.collect())

    @property
    def status(self) -> int:
        """The exit status after ``--once``."""
        outcomes = {result.outcome for result in self.results.values()}
        if Outcome.FAIL in outcomes:
            return FAILED
        return 0 if outcomes == {Outcome.PASS} else NOT_CHECKED

    def _log_changes(self, before: Mapping[str, Result]) -> None:
        for check, result in self.results.items():
            if check not in before or before[check].outcome is not result.outcome:
                level = logging.WARNING if result.outcome is Outcome.FAIL else logging.INFO
                log.log(level, "check %s: %s", check, result)
