"""A decision in plain values."""

from verifier.decision import Decision
from verifier.reasons import Reason


def test_a_decision_names_no_policy_and_no_identity_unless_given() -> None:
    assert Decision(Reason.MISSING_TOKEN) == (Reason.MISSING_TOKEN, "", False, "", None, None, "", "", "", None, False)
