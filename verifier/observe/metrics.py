"""What Prometheus reads. Counting is plain integers in dictionaries; everything else happens when it is read.

No label takes a value that an unauthenticated caller chose: statuses and reasons are a closed set, policies and
issuers are configured, and a client is counted once its token was verified.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from verifier import __version__
from verifier.decision import Observed, Reason

MAX_CLIENTS = 1000
# Seconds: a cached token takes tens of microseconds, a signature a hundred, a fetch of keys up to seconds.
BUCKETS = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class IssuerState(NamedTuple):
    """One issuer's keys, read when somebody scrapes."""

    name: str
    keys: int
    last_success: float | None
    refreshes: Mapping[str, int]


class State(NamedTuple):
    """What is read at the time of a scrape."""

    issuers: Iterable[IssuerState]
    cache_hits: int
    cache_misses: int
    cache_entries: int


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        running, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(labels, buckets, self.total)


class Metrics:
    """All of the program's metrics, as a collector of its own ``registry``.

    ``state`` is set by whoever composes the application.
    """

    def __init__(self) -> None:
        self.state: Callable[[], State] = lambda: State((), 0, 0, 0)
        self.reloads = {"success": 0, "failure": 0}
        self.last_reload_successful = True
        self.audit_dropped: Callable[[], int] = lambda: 0
        self._decisions: dict[tuple[Reason, str, str], int] = {}
        self._would_deny: dict[tuple[Reason, str], int] = {}
        self._durations: dict[int, _Histogram] = {status: _Histogram() for status in (200, 401, 403, 503)}
        self._verifications: dict[str, _Histogram] = {}
        self._clients: dict[tuple[str, str, int], int] = {}
        self._known_clients: set[tuple[str, str]] = set()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def observe(self, decided: Iterable[Observed]) -> None:
        """Count decisions, each with the seconds it took: the real ones, also in report mode."""
        for _, (reason, policy, issuer, token, *_), seconds in decided:
            status = reason.status
            name = policy.name if policy is not None else ""
            key = (reason, name, issuer)
            self._decisions[key] = self._decisions.get(key, 0) + 1
            self._durations[status].observe(seconds)
            if token is not None:
                client = (issuer, token.principal.client_id)
                if client not in self._known_clients:
                    client = self._admit(client)
                per_client = (*client, status)
                self._clients[per_client] = self._clients.get(per_client, 0) + 1
            if status != 200 and policy is not None and policy.report:
                denied = (reason, name)
                self._would_deny[denied] = self._would_deny.get(denied, 0) + 1

    def _admit(self, client: tuple[str, str]) -> tuple[str, str]:
        if len(self._known_clients) >= MAX_CLIENTS:
            return (client[0], "other")
        self._known_clients.add(client)
        return client

    def observe_verification(self, issuer: str, seconds: float) -> None:
        """Record one signature check."""
        histogram = self._verifications.get(issuer)
        if histogram is None:
            histogram = self._verifications[issuer] = _Histogram()
        histogram.observe(seconds)

    def count_reload(self, *, successful: bool) -> None:
        """Record that the configuration changed on disk and was taken, or refused."""
        self.reloads["success" if successful else "failure"] += 1
        self.last_reload_successful = successful

    def collect(self) -> Iterator[Metric]:
        """All families, as the Prometheus client asks."""
        decisions = CounterMetricFamily(
            "m2m_verifier_decisions", "Decisions, by reason.", labels=("status", "reason", "policy", "issuer")
        )
        for (reason, policy, issuer), count in self._decisions.items():
            decisions.add_metric((str(reason.status), reason, policy, issuer), count)
        yield decisions

        durations = HistogramMetricFamily(
            "m2m_verifier_decision_duration_seconds", "From a subrequest's headers to its answer.", labels=("status",)
        )
        for status, histogram in self._durations.items():
            histogram.add_to(durations, [str(status)])
        yield durations

        verifications = HistogramMetricFamily(
            "m2m_verifier_token_verification_duration_seconds", "Signatures actually checked.", labels=("issuer",)
        )
        for issuer, histogram in self._verifications.items():
            histogram.add_to(verifications, [issuer])
        yield verifications

        clients = CounterMetricFamily(
            "m2m_verifier_client_decisions",
            f"Decisions about verified clients: the first {MAX_CLIENTS}, then `other`.",
            labels=("issuer", "client_id", "status"),
        )
        for (issuer, client_id, status), count in self._clients.items():
            clients.add_metric((issuer, client_id, str(status)), count)
        yield clients

        would_deny = CounterMetricFamily(
            "m2m_verifier_would_deny", "Requests let through in report mode.", labels=("reason", "policy")
        )
        for (reason, policy), count in self._would_deny.items():
            would_deny.add_metric((reason, policy), count)
        yield would_deny
        yield from self._collect_state()

    def _collect_state(self) -> Iterator[Metric]:
        state = self.state()
        requests = CounterMetricFamily(
            "m2m_verifier_token_cache_requests", "Look-ups of verified tokens.", labels=("result",)
        )
        requests.add_metric(("hit",), state.cache_hits)
        requests.add_metric(("miss",), state.cache_misses)
        yield requests
        yield GaugeMetricFamily("m2m_verifier_token_cache_entries", "Verified tokens kept.", state.cache_entries)

        refreshes = CounterMetricFamily(
            "m2m_verifier_jwks_refreshes", "Fetches of an issuer's keys.", labels=("issuer", "result")
        )
        successes = GaugeMetricFamily(
            "m2m_verifier_jwks_last_success_timestamp_seconds",
            "When an issuer's keys were last had (0: never).",
            labels=("issuer",),
        )
        keys = GaugeMetricFamily("m2m_verifier_jwks_keys", "An issuer's keys in force.", labels=("issuer",))
        for issuer in state.issuers:
            for result, count in issuer.refreshes.items():
                refreshes.add_metric((issuer.name, result), count)
            successes.add_metric((issuer.name,), issuer.last_success or 0)
            keys.add_metric((issuer.name,), issuer.keys)
        yield refreshes
        yield successes
        yield keys

        reloads = CounterMetricFamily(
            "m2m_verifier_config_reloads", "Changes of the configuration on disk.", labels=("result",)
        )
        for result, count in self.reloads.items():
            reloads.add_metric((result,), count)
        yield reloads
        yield GaugeMetricFamily(
            "m2m_verifier_config_last_reload_successful",
            "0 while a broken configuration on disk is being refused.",
            float(self.last_reload_successful),
        )
        yield CounterMetricFamily(
            "m2m_verifier_audit_lines_dropped",
            "Audit lines lost because stdout took none for too long.",
            self.audit_dropped(),
        )
        build = GaugeMetricFamily("m2m_verifier_build_info", "The version that runs.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
