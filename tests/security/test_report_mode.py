"""A policy in report mode lets everything through, and vouches for nobody whom it could not verify."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from verifier.reasons import Reason as R

from .cases import Case
from .hostile_tokens import TABLE
from .tokens import Token
from .world import MAIN, World

WATCHED = [case for case in TABLE if case.world == "main"]
# Whoever meets these was verified, so that the API may be told who it is.
VERIFIED = {R.OK, R.CLIENT_NOT_ALLOWED, R.ISSUER_NOT_ALLOWED, R.INSUFFICIENT_SCOPE}
IDENTITY = ("x-m2m-client-id", "x-m2m-scope", "x-m2m-role", "x-m2m-issuer", "x-tenant-id", "x-level", "x-groups")


@pytest.mark.parametrize("case", WATCHED, ids=lambda case: case.name)
def test_a_watched_request_passes_without_an_identity_that_is_not_verified(main: World, case: Case) -> None:
    answer = replace(case.request, path="/verify/watched").ask(main, case.encode())
    assert answer.status == 200
    if case.reason not in VERIFIED:
        assert [answer.header(name) for name in IDENTITY] == [""] * len(IDENTITY)


def test_a_watched_request_that_lacks_a_scope_tells_who_it_is(main: World) -> None:
    answer = main.ask(Token(claims={"scope": "other"}), path="/verify/watched")
    assert (answer.status, answer.header("x-m2m-client-id"), answer.header("x-m2m-scope")) == (200, "agent-1", "other")


@pytest.mark.parametrize("query", [b"colour=red", b"scope=", b"client=nobody/x"])
def test_a_watched_request_passes_whatever_its_auth_url_asks(main: World, query: bytes) -> None:
    assert main.ask(Token(), path="/verify/watched", query=query).status == 200


def test_the_real_decision_goes_to_the_metrics(tmp_path: Path) -> None:
    # Tokens that are too large lack the policy's scope as well, which is looked at first.
    rows = [case for case in WATCHED if case.reason not in (R.OK, R.HEADERS_TOO_LARGE)]
    with World(MAIN, tmp_path) as world:
        for case in rows:
            replace(case.request, path="/verify/watched").ask(world, case.encode())
        assert world.decisions() == Counter((str(case.reason.status), str(case.reason)) for case in rows)


def test_no_client_turns_report_mode_on(main: World) -> None:
    token = Token(claims={"scope": "other"})
    for path, query in (("/verify/api", b"mode=report"), ("/verify/api", b"policy=watched"), ("/verify/Watched", b"")):
        assert main.ask(token, path=path, query=query, headers=[(b"x-m2m-mode", b"report")]).status == 403
