"""Each hostile request meets exactly the reason that the contract gives, through the whole application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from verifier.reasons import Reason

from . import hostile_requests, hostile_tokens
from .cases import Case
from .world import MAIN, STATUS, World

TABLE = [*hostile_tokens.TABLE, *hostile_requests.TABLE]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_a_request_meets_its_reason(case: Case, worlds: Callable[[str], World]) -> None:
    answer = case.request.ask(worlds(case.world), case.encode())
    assert (answer.reason, answer.status) == (case.reason, STATUS[case.reason])


def test_no_two_rows_share_their_name() -> None:
    assert [name for name, times in Counter(case.name for case in TABLE).items() if times > 1] == []


def test_the_reasons_and_their_statuses_are_the_contract_s() -> None:
    assert {str(reason): reason.status for reason in Reason} == STATUS


def test_every_reason_occurs_in_the_table() -> None:
    assert {case.reason for case in TABLE} == set(Reason) - {Reason.INTERNAL_ERROR}  # no request reaches a known defect


def test_every_decision_is_counted_once_under_its_reason(tmp_path: Path) -> None:
    rows = [case for case in TABLE if case.world == "main"]
    with World(MAIN, tmp_path) as world:
        for case in rows:
            case.request.ask(world, case.encode())
        assert world.decisions() == Counter((str(STATUS[case.reason]), str(case.reason)) for case in rows)


def test_a_second_time_the_answer_is_the_same(main: World) -> None:
    for case in TABLE:
        if case.world == "main":
            token = case.encode()
            assert case.request.ask(main, token) == case.request.ask(main, token), case.name


def test_no_url_of_a_token_is_ever_fetched(main: World) -> None:
    for case in hostile_tokens.KEY:
        case.request.ask(main, case.encode())
    assert not [url for url in main.fetched if "evil" in url]
