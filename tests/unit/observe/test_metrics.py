"""What Prometheus reads: names and labels of the contract, and no label that a stranger chose."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.support import make_principal, make_token
from verifier import __version__
from verifier.decision import Decision
from verifier.reasons import Reason
from verifier.observe.metrics import BUCKETS, MAX_CLIENTS, IssuerState, Metrics, State
from verifier.policy.policies import Policy
from verifier.request import AuthRequest

REQUEST = AuthRequest("api", b"", b"Bearer x", "GET", b"https://h/", request_id="chosen-by-a-stranger")
API, REPORT = Policy("api"), Policy("report", report=True)


def ok(client_id: str = "etl", policy: Policy = API, issuer: str = "lab") -> Decision:
    return Decision(Reason.OK, policy, issuer, make_token(make_principal(client_id=client_id, issuer=issuer)))


def observed(*decisions: Decision, seconds: float = 1e-3) -> Metrics:
    metrics = Metrics()
    for decision in decisions:
        metrics.observe([(REQUEST, decision, seconds)])
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
    ("m2m_verifier_build_info", "gauge", {"version"}),
]


@pytest.fixture
def full() -> Metrics:
    """Something of everything."""
    metrics = observed(ok(), Decision(Reason.NO_ROLE, REPORT, "lab", make_token()))
    metrics.observe_verification("lab", 1e-4)
    state = IssuerState("lab", 2, 1234.0, {"success": 3, "failure": 4})
    metrics.state = lambda: State((state,), 5, 6, 7)
    return metrics


@pytest.mark.parametrize(("name", "kind", "labels"), CONTRACT, ids=[name for name, _, _ in CONTRACT])
def test_each_metric_of_the_contract_is_exposed(full: Metrics, name: str, kind: str, labels: set[str]) -> None:
    found = families(full)
    family = found.get(name) or found[name.removesuffix("_total")]

    assert family.type == kind
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == labels


def test_a_decision_is_counted_with_its_labels() -> None:
    metrics = observed(ok(), ok(), Decision(Reason.EXPIRED, API, "lab"), Decision(Reason.UNKNOWN_POLICY, None))

    assert samples(metrics, "m2m_verifier_decisions_total") == {
        (("issuer", "lab"), ("policy", "api"), ("reason", "ok"), ("status", "200")): 2,
        (("issuer", "lab"), ("policy", "api"), ("reason", "expired"), ("status", "401")): 1,
        (("issuer", ""), ("policy", ""), ("reason", "unknown_policy"), ("status", "403")): 1,
    }


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_counted_and_timed(reason: Reason) -> None:
    metrics = observed(Decision(reason, API))

    assert sum(samples(metrics, "m2m_verifier_decisions_total").values()) == 1
    assert value(metrics, "m2m_verifier_decision_duration_seconds_count", status=str(reason.status)) == 1


def test_a_duration_falls_into_its_bucket_and_all_above() -> None:
    metrics = observed(ok(), seconds=1e-3)
    name = "m2m_verifier_decision_duration_seconds_bucket"
    counts = [value(metrics, name, status="200", le=str(bound)) for bound in BUCKETS]

    assert counts == [float(bound >= 1e-3) for bound in BUCKETS]
    assert value(metrics, name, status="200", le="+Inf") == 1
    assert value(metrics, "m2m_verifier_decision_duration_seconds_sum", status="200") == pytest.approx(1e-3)


def test_a_duration_beyond_every_bucket_counts_as_infinite() -> None:
    metrics = observed(ok(), seconds=60)
    name = "m2m_verifier_decision_duration_seconds_bucket"

    assert value(metrics, name, status="200", le=str(BUCKETS[-1])) == 0
    assert value(metrics, name, status="200", le="+Inf") == 1


def test_a_signature_check_is_timed_by_issuer(full: Metrics) -> None:
    name = "m2m_verifier_token_verification_duration_seconds"

    assert value(full, name + "_count", issuer="lab") == 1
    assert value(full, name + "_sum", issuer="lab") == pytest.approx(1e-4)


# --- clients ---

CLIENTS = "m2m_verifier_client_decisions_total"


def test_a_verified_client_is_counted_by_issuer_and_status() -> None:
    metrics = observed(ok(), ok(issuer="okta"), ok()._replace(reason=Reason.NO_ROLE))

    assert samples(metrics, CLIENTS) == {
        (("client_id", "etl"), ("issuer", "lab"), ("status", "200")): 1,
        (("client_id", "etl"), ("issuer", "okta"), ("status", "200")): 1,
        (("client_id", "etl"), ("issuer", "lab"), ("status", "403")): 1,
    }


def test_without_a_verified_token_no_client_is_counted() -> None:
    assert samples(observed(Decision(Reason.EXPIRED, API, "lab")), CLIENTS) == {}


def test_a_thousand_clients_are_told_apart_and_no_more() -> None:
    metrics = observed(*(ok(f"client-{number}") for number in range(MAX_CLIENTS + 5)))
    counted = samples(metrics, CLIENTS)

    assert MAX_CLIENTS == 1000
    assert len(counted) == 1001
    assert value(metrics, CLIENTS, issuer="lab", client_id="other", status="200") == 5


def test_a_client_that_was_counted_early_keeps_its_name() -> None:
    metrics = observed(*(ok(f"client-{number}") for number in range(MAX_CLIENTS + 5)), ok("client-0"))

    assert value(metrics, CLIENTS, issuer="lab", client_id="client-0", status="200") == 2


def test_no_label_takes_what_a_stranger_chose() -> None:
    """Whatever is refused without a verified token: only configured names and the closed set of reasons are told."""
    decisions = [Decision(reason, API, description="chosen-by-a-stranger", scope="chosen") for reason in Reason]
    metrics = observed(*decisions)

    assert "chosen" not in generate_latest(metrics.registry).decode()


def test_a_client_id_with_quotes_does_not_break_the_exposition() -> None:
    metrics = observed(ok('a"b\\c'))

    assert value(metrics, CLIENTS, issuer="lab", client_id='a"b\\c', status="200") == 1


# --- report mode ---


@pytest.mark.parametrize(
    ("reason", "policy", "count"),
    [(Reason.NO_ROLE, REPORT, 1), (Reason.EXPIRED, REPORT, 1), (Reason.OK, REPORT, None), (Reason.NO_ROLE, API, None)],
    ids=["would deny", "would deny a token", "allowed", "denied"],
)
def test_what_report_mode_lets_through_is_counted(reason: Reason, policy: Policy, count: int | None) -> None:
    metrics = observed(Decision(reason, policy))

    assert value(metrics, "m2m_verifier_would_deny_total", reason=reason, policy=policy.name) == count


def test_report_mode_counts_the_real_decision() -> None:
    metrics = observed(Decision(Reason.NO_ROLE, REPORT, "lab"))
    labels = {"status": "403", "reason": "no_role", "policy": "report", "issuer": "lab"}

    assert value(metrics, "m2m_verifier_decisions_total", **labels) == 1


# --- state, read when somebody scrapes ---


@pytest.mark.parametrize(
    ("name", "labels", "wanted"),
    [
        ("m2m_verifier_token_cache_requests_total", {"result": "hit"}, 5),
        ("m2m_verifier_token_cache_requests_total", {"result": "miss"}, 6),
        ("m2m_verifier_token_cache_entries", {}, 7),
        ("m2m_verifier_jwks_refreshes_total", {"issuer": "lab", "result": "success"}, 3),
        ("m2m_verifier_jwks_refreshes_total", {"issuer": "lab", "result": "failure"}, 4),
        ("m2m_verifier_jwks_last_success_timestamp_seconds", {"issuer": "lab"}, 1234),
        ("m2m_verifier_jwks_keys", {"issuer": "lab"}, 2),
        ("m2m_verifier_build_info", {"version": __version__}, 1),
    ],
)
def test_the_state_is_told(full: Metrics, name: str, labels: dict[str, Any], wanted: float) -> None:
    assert value(full, name, **labels) == wanted


def test_keys_that_were_never_had_tell_so() -> None:
    metrics = Metrics()
    metrics.state = lambda: State((IssuerState("lab", 0, None, {}),), 0, 0, 0)

    assert value(metrics, "m2m_verifier_jwks_last_success_timestamp_seconds", issuer="lab") == 0


@pytest.mark.parametrize(
    ("reloads", "success", "failure", "last"),
    [([], 0, 0, 1), ([True], 1, 0, 1), ([False], 0, 1, 0), ([False, True], 1, 1, 1), ([True, False], 1, 1, 0)],
)
def test_reloads_are_counted_and_the_last_is_told(reloads: list[bool], success: int, failure: int, last: int) -> None:
    metrics = Metrics()
    for successful in reloads:
        metrics.count_reload(successful=successful)

    assert value(metrics, "m2m_verifier_config_reloads_total", result="success") == success
    assert value(metrics, "m2m_verifier_config_reloads_total", result="failure") == failure
    assert value(metrics, "m2m_verifier_config_last_reload_successful") == last


def test_two_applications_do_not_share_their_numbers() -> None:
    observed(ok())

    assert samples(observed(), "m2m_verifier_decisions_total") == {}
