"""The closed set of reasons, and the status that each stands for."""

from verifier.reasons import Reason

CONTRACT = {
    200: "ok",
    401: "missing_token malformed_token unsupported_algorithm unknown_issuer unknown_key bad_signature expired "
    "not_yet_valid wrong_audience invalid_claims bad_proof revoked",
    403: "not_m2m client_not_allowed issuer_not_allowed insufficient_scope no_role no_matching_rule ambiguous_path "
    "unknown_policy bad_auth_request headers_too_large",
    503: "keys_unavailable internal_error",
}


def test_the_reasons_and_their_statuses_are_those_of_the_contract_and_no_other() -> None:
    contract = {word: status for status, words in CONTRACT.items() for word in words.split()}

    assert {str(reason): reason.status for reason in Reason} == contract
