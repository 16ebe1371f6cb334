"""Each hostile request gets exactly the reason that the contract gives.

The table goes over connections, as nginx asks; a request for each reason goes to the Starlette application too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from verifier.reasons import Reason

from . import hostile_claims, hostile_forms, hostile_requests, hostile_signatures
from .cases import Case
from .running_app import IDENTITY, MAIN, STATUS, Request, RunningApp, head
from .tokens import Token

TOKENS = [*hostile_forms.TABLE, *hostile_signatures.TABLE, *hostile_claims.TABLE]
TABLE = [*TOKENS, *hostile_requests.TABLE]
ROWS = [case for case in TABLE if case.app == "main"]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_a_request_gets_its_reason(case: Case, apps: Callable[[str], RunningApp]) -> None:
    answer = case.ask(apps(case.app))
    assert (answer.reason, answer.status) == (case.reason, STATUS[case.reason])


def test_no_two_rows_have_the_same_name() -> None:
    assert [name for name, times in Counter(case.name for case in TABLE).items() if times > 1] == []


def test_every_reason_occurs_in_the_table() -> None:
    assert {case.reason for case in TABLE} == set(Reason) - {Reason.INTERNAL_ERROR}  # no request reaches a known defect


def test_every_decision_is_counted_once_under_its_reason(tmp_path: Path) -> None:
    with RunningApp(MAIN, tmp_path) as app:
        for case in ROWS:
            case.ask(app)
        assert app.decisions() == Counter((STATUS[case.reason], str(case.reason)) for case in ROWS)
        # The rest holds bytes that no HTTP parser passes on, or an auth path that needs a URL parser.
        assert app.connections - app.by_uvicorn >= 0.9 * len(ROWS)
        assert app.by_uvicorn >= 5


def test_the_same_request_gets_the_same_answer_again(main: RunningApp) -> None:
    answers = [(case.name, *(case.ask(main) for _ in range(2))) for case in ROWS]
    assert [name for name, first, second in answers if first != second] == []


def test_the_starlette_application_gives_the_same_answers(main: RunningApp) -> None:
    one_of_each = {case.reason: case for case in reversed(ROWS)}.values()
    assert len(one_of_each) >= len(Reason) - 2  # no_role needs another configuration, internal_error a defect
    for case in one_of_each:
        over_connection = case.ask(main)
        assert case.ask(main, asgi=True) == over_connection, case.name


@pytest.mark.parametrize("target", [b"/verify?#&scope=write", b"/verify#/api", b"/verify/api?scope=read#", b"/health#"])
def test_a_fragment_in_the_request_target_is_refused(main: RunningApp, target: bytes) -> None:
    # uvicorn would drop it, and with it parameters that narrow the policy.
    asked = head(b"GET %b HTTP/1.1" % target, Request().pairs(Token("es").encode()))
    assert main.run(main.exchange(asked)).status == 400


def test_no_url_in_a_token_is_ever_fetched(main: RunningApp) -> None:
    for case in hostile_signatures.KEY:
        case.ask(main)
    assert [url for url in main.fetched if "evil" in url] == []


# --- Report mode ------------------------------------------------------------------------------------------------------

# Clients of these decisions were verified.
VERIFIED = {Reason.OK, Reason.CLIENT_NOT_ALLOWED, Reason.ISSUER_NOT_ALLOWED, Reason.INSUFFICIENT_SCOPE}


def test_in_report_mode_every_request_passes_counted_as_refused_and_names_only_who_was_verified(tmp_path: Path) -> None:
    # Tokens that are too large lack the policy's scope as well, which is checked first.
    rows = [case for case in TOKENS if case.app == "main" and case.reason is not Reason.HEADERS_TOO_LARGE]
    refused = Counter((case.reason.status, str(case.reason)) for case in rows if case.reason is not Reason.OK)
    with RunningApp(MAIN, tmp_path) as app:
        for case in rows:
            answer = case.ask(app, path="/verify/watched")
            assert answer.status == 200, case.name
            assert case.reason in VERIFIED or answer.identity == [""] * len(IDENTITY), case.name
        assert refused.items() <= app.decisions().items()


def test_in_report_mode_a_request_that_lacks_a_scope_passes_with_its_identity(main: RunningApp) -> None:
    answer = main.ask(Token(claims={"scope": "other"}), path="/verify/watched")
    assert (answer.status, answer.header("x-m2m-client-id"), answer.header("x-m2m-scope")) == (200, "agent-1", "other")


@pytest.mark.parametrize("query", [b"colour=red", b"scope=", b"client=unknown/x"])
def test_in_report_mode_a_request_passes_whatever_its_auth_url_asks(main: RunningApp, query: bytes) -> None:
    assert main.ask(Token(), path="/verify/watched", query=query).status == 200


def test_no_client_can_turn_report_mode_on(main: RunningApp) -> None:
    token = Token(claims={"scope": "other"})
    for path, query in (("/verify/api", b"mode=report"), ("/verify/api", b"policy=watched"), ("/verify/Watched", b"")):
        assert main.ask(token, path=path, query=query, headers=[(b"x-m2m-mode", b"report")]).status == 403
