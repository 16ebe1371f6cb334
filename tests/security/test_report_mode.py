"""A policy in report mode allows every request, and names only clients that were verified."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from verifier.reasons import Reason as R

from .running_app import IDENTITY, MAIN, RunningApp
from .test_hostile import TOKENS
from .tokens import Token

# Clients of these decisions were verified.
VERIFIED = {R.OK, R.CLIENT_NOT_ALLOWED, R.ISSUER_NOT_ALLOWED, R.INSUFFICIENT_SCOPE}


def test_every_request_passes_counted_as_refused_and_without_an_unverified_identity(tmp_path: Path) -> None:
    # Tokens that are too large lack the policy's scope as well, which is checked first.
    rows = [case for case in TOKENS if case.app == "main" and case.reason is not R.HEADERS_TOO_LARGE]
    scope_of_policy = Counter((str(case.reason), case.reason.status) for case in rows if case.reason is not R.OK)
    with RunningApp(MAIN, tmp_path) as app:
        answers = [(case, case.ask(app, path="/verify/watched")) for case in rows]
        assert [case.name for case, answer in answers if answer.status != 200] == []
        unverified = [(case.name, answer) for case, answer in answers if case.reason not in VERIFIED]
        assert [name for name, answer in unverified if answer.identity != [""] * len(IDENTITY)] == []
        counted = app.decisions()
        assert {reason: counted[status, reason] for reason, status in scope_of_policy} == {
            reason: count for (reason, _), count in scope_of_policy.items()
        }


def test_a_request_that_lacks_a_scope_passes_with_its_identity(main: RunningApp) -> None:
    answer = main.ask(Token(claims={"scope": "other"}), path="/verify/watched")
    assert (answer.status, answer.header("x-m2m-client-id"), answer.header("x-m2m-scope")) == (200, "agent-1", "other")


@pytest.mark.parametrize("query", [b"colour=red", b"scope=", b"client=unknown/x"])
def test_a_request_passes_whatever_its_auth_url_asks(main: RunningApp, query: bytes) -> None:
    assert main.ask(Token(), path="/verify/watched", query=query).status == 200


def test_no_client_can_turn_report_mode_on(main: RunningApp) -> None:
    token = Token(claims={"scope": "other"})
    for path, query in (("/verify/api", b"mode=report"), ("/verify/api", b"policy=watched"), ("/verify/Watched", b"")):
        assert main.ask(token, path=path, query=query, headers=[(b"x-m2m-mode", b"report")]).status == 403
