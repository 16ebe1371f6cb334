"""A decision in plain values."""

from dataclasses import astuple

from verifier.decision import Decision
from verifier.reasons import Reason


def test_only_a_refusal_for_scope_takes_the_status_of_the_scope_challenge() -> None:
    changed = {reason: Decision(reason, scope_challenge=401).status for reason in Reason}

    assert changed == {reason: reason.status for reason in Reason} | {Reason.INSUFFICIENT_SCOPE: 401}


def test_a_decision_names_no_policy_and_no_identity_unless_given() -> None:
    assert astuple(Decision(Reason.MISSING_TOKEN)) == (
        Reason.MISSING_TOKEN, "", False, "", None, None, "", "", "", None, False, 403,
    )  # fmt: skip
