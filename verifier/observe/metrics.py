"""What Prometheus reads.

No label takes a value that an unauthenticated client chose: statuses and reasons are a closed set, policies and issuers
are configured, and a client is counted once its token was verified.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from verifier import __version__
from verifier.observe.batch import Observation
from verifier.reasons import OK, Reason

MAX_CLIENTS = 1000
OTHER_CLIENTS = "other"
# Seconds: a cached token takes tens of microseconds, a signature a hundred, a fetch of keys up to seconds.
BUCKETS = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

disable_created_metrics()  # type: ignore[no-untyped-call] # a series for each series, which nothing here reads


class Durations(Collector):
    """A histogram of seconds with one label. ``prometheus_client.Histogram`` takes several times as long to observe.

    ``values`` are those of the label that are exposed from the start.
    """

    def __init__(self, name: str, documentation: str, label: str, values: Iterable[str | int] = ()) -> None:
        self._described = name, documentation, None, None, (label,)
        self._counts: dict[str | int, list[int]] = {value: [0] * (len(BUCKETS) + 1) for value in values}
        self._sums: dict[str | int, float] = dict.fromkeys(values, 0.0)

    def observe(self, value: str | int, seconds: float) -> None:
        """Count one duration under a value of the label, of which there are few."""
        counts = self._counts.get(value)
        if counts is None:
            counts = self._counts[value] = [0] * (len(BUCKETS) + 1)
            self._sums[value] = 0.0
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[value] += seconds

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        family = HistogramMetricFamily(*self._described)
        for value, counts in self._counts.items():
            bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
            family.add_metric([str(value)], list(zip(bounds, accumulate(counts))), self._sums[value])
        yield family


class Counts(Collector):
    """A counter with labels. ``prometheus_client.Counter`` takes ten times as long to count.

    ``values`` are those of the labels that are exposed from the start.
    """

    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], values: Iterable[tuple[str | int, ...]] = ()
    ) -> None:
        self._described = name, documentation, None, labels
        self.of: defaultdict[tuple[str | int, ...], int] = defaultdict(int, dict.fromkeys(values, 0))
        """The counts, by the values of the labels. Who counts bounds how many there are."""

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        family = CounterMetricFamily(*self._described)
        for values, count in list(self.of.items()):  # a copy: a thread renders while others are added
            family.add_metric([str(value) for value in values], count)
        yield family


class Metrics:
    """All metrics of one process, in a ``registry`` of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._decisions = Counts(
            "m2m_verifier_decisions", "Decisions, by reason.", ("status", "reason", "policy", "issuer")
        )
        self._durations = Durations(
            "m2m_verifier_decision_duration_seconds",
            "From a subrequest's headers to its answer.",
            "status",
            sorted({reason.status for reason in Reason}),
        )
        self.verifications = Durations(
            "m2m_verifier_token_verification_duration_seconds", "Signatures actually checked.", "issuer"
        )
        self._clients = Counts(
            "m2m_verifier_client_decisions",
            f"Decisions about verified clients that their issuer lists: the first {MAX_CLIENTS}, then `other`.",
            ("issuer", "client_id", "status"),
        )
        self._would_deny = Counter(
            "m2m_verifier_would_deny", "Requests let through in report mode.", ("reason", "policy"), registry=registry
        )
        self._lookups = Counts(
            "m2m_verifier_token_cache_requests", "Look-ups of verified tokens.", ("result",), [("hit",), ("miss",)]
        )
        self.cache_entries = Gauge("m2m_verifier_token_cache_entries", "Verified tokens kept.", registry=registry)
        self._refreshes = Counter(
            "m2m_verifier_jwks_refreshes", "Fetches of an issuer's keys.", ("issuer", "result"), registry=registry
        )
        self._last_success = Gauge(
            "m2m_verifier_jwks_last_success_timestamp_seconds",
            "The last successful load of an issuer's keys (0: never).",
            ("issuer",), registry=registry,
        )  # fmt: skip
        self._keys = Gauge("m2m_verifier_jwks_keys", "An issuer's keys in force.", ("issuer",), registry=registry)
        self._reloads = Counts(
            "m2m_verifier_config_reloads", "Changes of the configuration on disk.", ("result",),
            [("success",), ("failure",)],
        )  # fmt: skip
        self._last_reload = Gauge(
            "m2m_verifier_config_last_reload_successful", "0 while a broken configuration on disk is being refused.",
            registry=registry,
        )  # fmt: skip
        self._last_reload.set(1)
        self.audit_dropped = Counter(
            "m2m_verifier_audit_lines_dropped", "Audit lines lost because stdout took none for too long.",
            registry=registry,
        )  # fmt: skip
        build = Gauge("m2m_verifier_build_info", "The running version.", ("version",), registry=registry)
        build.labels(__version__).set(1)
        own = self._decisions, self._durations, self.verifications, self._clients, self._lookups, self._reloads
        for collector in own:
            registry.register(collector)
        self._known_clients: set[tuple[str, str]] = set()

    def observe(self, observations: Iterable[Observation]) -> None:
        """Count decisions and the time they took: the real ones, also in report mode."""
        decisions, lookups, clients = self._decisions.of, self._lookups.of, self._clients.of
        for observation in observations:
            decision = observation.decision
            reason, token = decision.reason, decision.token
            status = 200 if reason is OK else decision.status
            decisions[status, reason, decision.policy, decision.issuer] += 1
            self._durations.observe(status, observation.seconds)
            if decision.cached is not None:
                lookups["hit" if decision.cached else "miss",] += 1
            if token is not None and token.principal.listed:  # others could fill the label with names of their choice
                client = decision.issuer, token.principal.client_id, status
                clients[client if client in clients else self._bounded(*client)] += 1
            if decision.report and reason is not OK:
                self._would_deny.labels(reason, decision.policy).inc()

    def _bounded(self, issuer: str, client_id: str, status: int) -> tuple[str, str, int]:
        """The labels of a client's first decision with this status."""
        if (issuer, client_id) not in self._known_clients:
            if len(self._known_clients) >= MAX_CLIENTS:
                return issuer, OTHER_CLIENTS, status
            self._known_clients.add((issuer, client_id))
        return issuer, client_id, status

    def refresh_counter(self, issuer: str) -> Callable[[bool], None]:
        """What counts the fetches of an issuer's keys, by success."""
        children = {True: self._refreshes.labels(issuer, "success"), False: self._refreshes.labels(issuer, "failure")}
        return lambda successful: children[successful].inc()

    def show_keys(self, issuers: Iterable[tuple[str, int, float | None]]) -> None:
        """Set the gauges of all issuers: name, keys in force, time of the last success. Others disappear."""
        self._keys.clear()
        self._last_success.clear()
        for name, keys, last_success in issuers:
            self._keys.labels(name).set(keys)
            self._last_success.labels(name).set(last_success or 0)

    def count_reload(self, *, successful: bool) -> None:
        """Record that the configuration changed on disk and was taken, or refused."""
        self._reloads.of["success" if successful else "failure",] += 1
        self._last_reload.set(successful)
