"""How the metrics of several processes are added up."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from prometheus_client import Metric

from tests.unit.support import make_token, observation
from verifier.decision import Decision
from verifier.observe.merge import merge
from verifier.observe.metrics import Metrics
from verifier.reasons import Reason
from verifier.request import AuthRequest


def worker(decisions: int, *, keys: int = 2, last: float = 100.0, reloaded: bool = True) -> list[Metric]:
    """The metrics of a process that decided so often."""
    metrics = Metrics()
    request = AuthRequest("api", b"", None, "GET", b"")
    decision = Decision(Reason.OK, "api", issuer="lab", token=make_token(), cached=True)
    metrics.observe([observation(0, request, decision, 1e-3)] * decisions)
    metrics.count_reload(successful=reloaded)
    metrics.show_keys([("lab", keys, last)])
    metrics.cache_entries.set(5)
    return list(metrics.registry.collect())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("m2m_verifier_decisions_total", 7),
        ("m2m_verifier_decision_duration_seconds_count", 7),
        ("m2m_verifier_client_decisions_total", 7),
        ("m2m_verifier_token_cache_requests_total", 7),
        ("m2m_verifier_token_cache_entries", 10),
        # Of what cannot be added the lowest counts.
        ("m2m_verifier_jwks_keys", 0),
        ("m2m_verifier_jwks_last_success_timestamp_seconds", 50),
        ("m2m_verifier_config_last_reload_successful", 0),
        ("m2m_verifier_build_info", 1),
    ],
)
def test_metrics_of_two_workers_are_those_of_one_process(name: str, value: float) -> None:
    families = merge([worker(3), worker(4, keys=0, last=50.0, reloaded=False)])
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels.get("result") in (None, "hit") and "le" not in sample.labels
    ]

    assert max(found) == value


def test_a_series_that_only_one_worker_has_is_there() -> None:
    families = merge([worker(0), worker(2)])

    assert ("m2m_verifier_decisions_total", 2) in [(one.name, one.value) for it in families for one in it.samples]


def test_the_metrics_of_one_worker_stay_as_they_are() -> None:
    def plain(families: Iterable[Metric]) -> set[tuple[str, str, frozenset[tuple[str, str]], float]]:
        return {
            (family.type, sample.name, frozenset(sample.labels.items()), sample.value)
            for family in families
            for sample in family.samples
        }

    one = worker(2)

    assert plain(merge([one])) == plain(one)
