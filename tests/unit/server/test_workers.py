"""Several processes, one truth: how their numbers are added up."""

from __future__ import annotations

from prometheus_client import Metric

from tests.unit.support import make_token
from verifier.decision import Decision
from verifier.reasons import Reason
from verifier.observe.metrics import IssuerState, Metrics, State
from verifier.policy.policies import Policy
from verifier.request import AuthRequest
from verifier.server.run import Listeners
from verifier.server.workers import Parent, _metric, _monotonic, _read, merge, snapshot

REQUEST = AuthRequest("api", b"", None, "GET", b"")


def worker(decisions: int, *, keys: int = 2, last: float = 100.0, reloaded: bool = True, entries: int = 5) -> Metrics:
    """A worker that has answered so often."""
    metrics = Metrics()
    for _ in range(decisions):
        metrics.observe([(REQUEST, Decision(Reason.OK, Policy("api"), "lab", make_token()), 1e-3)])
    metrics.count_reload(successful=reloaded)
    metrics.state = lambda: State((IssuerState("lab", keys, last, {"success": 1}),), 10, 20, entries)
    return metrics


def told(*metrics: Metrics) -> dict[str, float]:
    """What the parent tells of its workers: the values by series name."""
    families = merge([_read(snapshot(one.registry.collect())) for one in metrics])
    return {sample.name: sample.value for family in families for sample in _metric(family).samples}


def test_counters_are_added_up() -> None:
    assert told(worker(3), worker(4))["m2m_verifier_decisions_total"] == 7


def test_histograms_are_added_up() -> None:
    values = told(worker(3), worker(4))

    assert values["m2m_verifier_client_decisions_total"] == 7
    assert values["m2m_verifier_token_cache_requests_total"] == 40


def test_entries_are_added_up() -> None:
    assert told(worker(1), worker(1))["m2m_verifier_token_cache_entries"] == 10


def test_of_what_cannot_be_added_the_worst_counts() -> None:
    values = told(worker(1), worker(1, keys=0, last=50.0, reloaded=False))

    assert values["m2m_verifier_jwks_keys"] == 0
    assert values["m2m_verifier_jwks_last_success_timestamp_seconds"] == 50
    assert values["m2m_verifier_config_last_reload_successful"] == 0


def test_the_version_stays_1() -> None:
    assert told(worker(1), worker(1))["m2m_verifier_build_info"] == 1


def test_a_series_that_one_worker_has_is_told() -> None:
    assert told(worker(0), worker(2))["m2m_verifier_decisions_total"] == 2


def test_one_workers_numbers_survive_the_way_to_the_parent() -> None:
    def plain(families: list[Metric]) -> set[tuple[str, str, frozenset[tuple[str, str]], float]]:
        return {
            (family.type, sample.name, frozenset(sample.labels.items()), sample.value)
            for family in families
            for sample in family.samples
            if not sample.name.startswith("process_")
        }

    metrics = worker(2)
    there = [_metric(family) for family in merge([_read(snapshot(metrics.registry.collect()))])]

    assert plain(there) == plain(list(metrics.registry.collect()))


def test_of_a_worker_that_has_gone_only_what_counts_up_stays() -> None:
    gone = _monotonic(_read(snapshot(worker(3).registry.collect())))

    assert {kind for _, kind, _, _ in gone} == {"counter", "histogram"}


def test_counters_of_a_worker_that_has_gone_stay_in_the_sum() -> None:
    gone = _monotonic(_read(snapshot(worker(3).registry.collect())))
    living = _read(snapshot(worker(1).registry.collect()))
    values = {sample.name: sample.value for family in merge([living, gone]) for sample in _metric(family).samples}

    assert values["m2m_verifier_decisions_total"] == 4
    assert values["m2m_verifier_token_cache_entries"] == 5


def test_all_workers_together_name_no_more_clients_than_one() -> None:
    """Each names its first 1,000; the sum must not name 2,000."""
    samples = {
        ("m2m_verifier_client_decisions_total", (("issuer", "lab"), ("client_id", f"c{n}"), ("status", "200"))): 1.0
        for n in range(1500)
    }
    parent = Parent(2, [], None, Listeners(None, None))  # type: ignore[arg-type] # nothing listens here
    bounded = parent._bound_clients(("m2m_verifier_client_decisions", "counter", "", samples))[3]
    clients = {dict(labels)["client_id"] for _, labels in bounded}

    assert len(clients) == 1001
    assert sum(bounded.values()) == 1500
