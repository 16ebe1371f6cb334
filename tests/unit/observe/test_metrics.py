"""What Prometheus reads: names and labels of the contract, and no label that an unauthenticated client chose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.support import make_principal, make_token, observation
from verifier import __version__
from verifier.decision import Decision
from verifier.observe.metrics import BUCKETS, MAX_CLIENTS, Metrics
from verifier.reasons import Reason
from verifier.request import AuthRequest

REQUEST = AuthRequest("chosen", b"chosen", b"Bearer chosen", "GET", b"https://chosen/", request_id="chosen")


def ok(client_id: str = "etl", *, issuer: str = "lab", **changes: Any) -> Decision:
    token = make_token(make_principal(client_id=client_id, issuer=issuer))
    return replace(Decision(Reason.OK, "api", issuer=issuer, token=token), **changes)


def denied(reason: Reason, **changes: Any) -> Decision:
    return replace(Decision(reason, "api", issuer="lab"), **changes)


def observed(*decisions: Decision, seconds: float = 1e-3) -> Metrics:
    metrics = Metrics()
    metrics.observe([observation(0, REQUEST, decision, seconds) for decision in decisions])
    return metrics


def families(metrics: Metrics) -> dict[str, Metric]:
    """As Prometheus reads the exposition."""
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(metrics: Metrics, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The values of one series name, by labels."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families(metrics).values()
        for sample in family.samples
        if sample.name == name
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics, name).get(tuple(sorted(labels.items())))


CONTRACT: list[tuple[str, str, set[str]]] = [
    ("m2m_verifier_decisions_total", "counter", {"status", "reason", "policy", "issuer"}),
    ("m2m_verifier_decision_duration_seconds", "histogram", {"status"}),
    ("m2m_verifier_token_verification_duration_seconds", "histogram", {"issuer"}),
    ("m2m_verifier_client_decisions_total", "counter", {"issuer", "client_id", "status"}),
    ("m2m_verifier_would_deny_total", "counter", {"reason", "policy"}),
    ("m2m_verifier_token_cache_requests_total", "counter", {"result"}),
    ("m2m_verifier_token_cache_entries", "gauge", set()),
    ("m2m_verifier_jwks_refreshes_total", "counter", {"issuer", "result"}),
    ("m2m_verifier_jwks_last_success_timestamp_seconds", "gauge", {"issuer"}),
    ("m2m_verifier_jwks_keys", "gauge", {"issuer"}),
    ("m2m_verifier_config_reloads_total", "counter", {"result"}),
    ("m2m_verifier_config_last_reload_successful", "gauge", set()),
    ("m2m_verifier_audit_lines_dropped_total", "counter", set()),
    ("m2m_verifier_build_info", "gauge", {"version"}),
    ("process_resident_memory_bytes", "gauge", set()),
]


@pytest.fixture
def full() -> Metrics:
    """Something of everything."""
    metrics = observed(ok(cached=True), ok(cached=False), ok(cached=False), denied(Reason.NO_ROLE, report=True))
    metrics.verifications.observe("lab", 1e-4)
    count = metrics.refresh_counter("lab")
    for successful in (True, True, True, False):
        count(successful)
    metrics.show_keys([("lab", 2, 1234.0), ("new", 0, None)])
    metrics.cache_entries.set(7)
    metrics.audit_dropped.inc(5)
    return metrics


@pytest.mark.parametrize(("name", "kind", "labels"), CONTRACT, ids=[name for name, _, _ in CONTRACT])
def test_each_metric_of_the_contract_is_exposed(full: Metrics, name: str, kind: str, labels: set[str]) -> None:
    found = families(full)
    family = found.get(name) or found[name.removesuffix("_total")]

    assert family.type == kind
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == labels


@pytest.mark.parametrize(
    ("name", "labels", "wanted"),
    [
        ("m2m_verifier_token_cache_requests_total", {"result": "hit"}, 1),
        ("m2m_verifier_token_cache_requests_total", {"result": "miss"}, 2),
        ("m2m_verifier_token_cache_entries", {}, 7),
        ("m2m_verifier_token_verification_duration_seconds_count", {"issuer": "lab"}, 1),
        ("m2m_verifier_token_verification_duration_seconds_sum", {"issuer": "lab"}, 1e-4),
        ("m2m_verifier_jwks_refreshes_total", {"issuer": "lab", "result": "success"}, 3),
        ("m2m_verifier_jwks_refreshes_total", {"issuer": "lab", "result": "failure"}, 1),
        ("m2m_verifier_jwks_last_success_timestamp_seconds", {"issuer": "lab"}, 1234),
        ("m2m_verifier_jwks_last_success_timestamp_seconds", {"issuer": "new"}, 0),
        ("m2m_verifier_jwks_keys", {"issuer": "lab"}, 2),
        ("m2m_verifier_audit_lines_dropped_total", {}, 5),
        ("m2m_verifier_build_info", {"version": __version__}, 1),
    ],
)
def test_a_value_is_exposed(full: Metrics, name: str, labels: dict[str, Any], wanted: float) -> None:
    assert value(full, name, **labels) == wanted


def test_an_issuer_that_was_removed_has_no_gauges(full: Metrics) -> None:
    full.show_keys([("new", 1, 5.0)])

    assert value(full, "m2m_verifier_jwks_keys", issuer="lab") is None
    assert value(full, "m2m_verifier_jwks_keys", issuer="new") == 1


@pytest.mark.parametrize(
    ("reloads", "success", "failure", "last"),
    [([], 0, 0, 1), ([True], 1, 0, 1), ([False], 0, 1, 0), ([False, True], 1, 1, 1), ([True, False], 1, 1, 0)],
)
def test_reloads_are_counted_and_the_last_one_shown(reloads: list[bool], success: int, failure: int, last: int) -> None:
    metrics = Metrics()
    for successful in reloads:
        metrics.count_reload(successful=successful)

    assert value(metrics, "m2m_verifier_config_reloads_total", result="success") == success
    assert value(metrics, "m2m_verifier_config_reloads_total", result="failure") == failure
    assert value(metrics, "m2m_verifier_config_last_reload_successful") == last


# --- decisions ---


def test_a_decision_is_counted_with_its_labels_and_the_status_that_was_sent() -> None:
    scope = denied(Reason.INSUFFICIENT_SCOPE)
    challenge = replace(scope, scope_challenge=401)
    metrics = observed(ok(), ok(), denied(Reason.EXPIRED), scope, challenge, Decision(Reason.UNKNOWN_POLICY))

    assert samples(metrics, "m2m_verifier_decisions_total") == {
        (("issuer", "lab"), ("policy", "api"), ("reason", "ok"), ("status", "200")): 2,
        (("issuer", "lab"), ("policy", "api"), ("reason", "expired"), ("status", "401")): 1,
        (("issuer", "lab"), ("policy", "api"), ("reason", "insufficient_scope"), ("status", "401")): 1,
        (("issuer", "lab"), ("policy", "api"), ("reason", "insufficient_scope"), ("status", "403")): 1,
        (("issuer", ""), ("policy", ""), ("reason", "unknown_policy"), ("status", "403")): 1,
    }


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_counted_and_timed(reason: Reason) -> None:
    metrics = observed(denied(reason))

    assert sum(samples(metrics, "m2m_verifier_decisions_total").values()) == 1
    assert value(metrics, "m2m_verifier_decision_duration_seconds_count", status=str(reason.status)) == 1


@pytest.mark.parametrize("seconds", [1e-3, 60], ids=["in a bucket", "beyond every bucket"])
def test_a_duration_falls_into_its_bucket_and_all_above(seconds: float) -> None:
    metrics = observed(ok(), seconds=seconds)
    name = "m2m_verifier_decision_duration_seconds"
    counts = [value(metrics, name + "_bucket", status="200", le=str(bound)) for bound in BUCKETS]

    assert counts == [float(bound >= seconds) for bound in BUCKETS]
    assert value(metrics, name + "_bucket", status="200", le="+Inf") == 1
    assert value(metrics, name + "_sum", status="200") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("decision", "count"),
    [
        (denied(Reason.NO_ROLE, report=True), 1),
        (denied(Reason.EXPIRED, report=True), 1),
        (ok(report=True), None),
        (denied(Reason.NO_ROLE), None),
    ],
    ids=["would deny", "would deny a token", "allowed", "denied"],
)
def test_what_report_mode_allows_is_counted_with_its_real_reason(decision: Decision, count: int | None) -> None:
    metrics = observed(decision)
    reason = decision.reason

    assert value(metrics, "m2m_verifier_would_deny_total", reason=reason, policy="api") == count
    labels = {"status": str(reason.status), "reason": reason, "policy": "api", "issuer": "lab"}
    assert value(metrics, "m2m_verifier_decisions_total", **labels) == 1


# --- clients ---

CLIENTS = "m2m_verifier_client_decisions_total"


def test_a_verified_client_is_counted_by_issuer_and_status() -> None:
    without_a_token = Decision(Reason.OK, "api", report=True)
    metrics = observed(ok(), ok(issuer="okta"), ok(reason=Reason.NO_ROLE), denied(Reason.EXPIRED), without_a_token)

    assert samples(metrics, CLIENTS) == {
        (("client_id", "etl"), ("issuer", "lab"), ("status", "200")): 1,
        (("client_id", "etl"), ("issuer", "okta"), ("status", "200")): 1,
        (("client_id", "etl"), ("issuer", "lab"), ("status", "403")): 1,
    }
    assert samples(metrics, "m2m_verifier_would_deny_total") == {}


def test_a_thousand_clients_have_series_of_their_own_and_no_more() -> None:
    metrics = observed(*(ok(f"client-{number}") for number in range(MAX_CLIENTS + 5)), ok("client-0"))

    assert MAX_CLIENTS == 1000
    assert len(samples(metrics, CLIENTS)) == 1001
    assert value(metrics, CLIENTS, issuer="lab", client_id="other", status="200") == 5
    assert value(metrics, CLIENTS, issuer="lab", client_id="client-0", status="200") == 2


def test_a_client_id_with_quotes_does_not_break_the_exposition() -> None:
    metrics = observed(ok('a"b\\c'))

    assert value(metrics, CLIENTS, issuer="lab", client_id='a"b\\c', status="200") == 1


def test_two_applications_do_not_share_their_metrics() -> None:
    observed(ok())

    assert samples(observed(), "m2m_verifier_decisions_total") == {}
