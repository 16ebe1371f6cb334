"""The closed set of reasons, and the status that each stands for."""

import pytest

from verifier.decision import Decision, Reason, Rejected

CONTRACT = {
    200: "ok",
    401: "missing_token malformed_token unsupported_algorithm unknown_issuer unknown_key bad_signature expired "
    "not_yet_valid wrong_audience invalid_claims bad_proof revoked",
    403: "not_m2m client_not_allowed issuer_not_allowed insufficient_scope no_role no_matching_rule ambiguous_path "
    "unknown_policy bad_auth_request headers_too_large",
    503: "keys_unavailable",
}


def test_the_reasons_are_those_of_the_contract_and_no_other() -> None:
    assert {str(reason) for reason in Reason} == {word for words in CONTRACT.values() for word in words.split()}


@pytest.mark.parametrize(("status", "word"), [(s, w) for s, words in CONTRACT.items() for w in words.split()])
def test_each_reason_has_its_status(status: int, word: str) -> None:
    assert Reason(word).status == status


def test_a_reason_is_its_word_wherever_text_is_wanted() -> None:
    assert f"{Reason.EXPIRED}" == Reason.EXPIRED == "expired"


def test_a_rejection_carries_its_cause() -> None:
    no = Rejected(Reason.EXPIRED, "too late", issuer="lab", scope="read")

    assert (no.reason, no.description, no.issuer, no.scope) == (Reason.EXPIRED, "too late", "lab", "read")


def test_a_decision_names_no_identity_unless_told() -> None:
    decision = Decision(Reason.MISSING_TOKEN, None)

    assert (decision.issuer, decision.token, decision.scope, decision.cached) == ("", None, "", False)
