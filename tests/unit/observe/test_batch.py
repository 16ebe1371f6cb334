"""Decisions are observed in batches, in order, and none is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.support import Clock
from verifier.decision import Decision
from verifier.observe.batch import BATCH, INTERVAL, MAX_PENDING, Batch
from verifier.reasons import Reason
from verifier.request import AuthRequest

DECISION = Decision(Reason.OK)


class Observed:
    """A batch, and what its two observers were called with: the request ids of each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.clock = Clock()
        self.batch = Batch(
            self.clock,
            *(
                lambda seen, name=name: self.calls.append((name, [one.request_id for one in seen]))
                for name in ("metrics", "audit")
            ),
        )

    def add(self, *ids: str) -> None:
        for request_id in ids:
            self.batch.add(AuthRequest("api", b"", None, "GET", b"", request_id=request_id), DECISION, 1e-3)


async def test_decisions_are_observed_together_after_a_moment() -> None:
    observed = Observed()
    for ids in (["1", "2"], ["3"]):
        observed.add(*ids)
        assert observed.calls == []
        await asyncio.sleep(2 * INTERVAL)
        assert observed.calls == [("metrics", ids), ("audit", ids)]
        observed.calls.clear()


async def test_no_decision_waits_longer_because_others_come() -> None:
    observed = Observed()
    observed.add("1")
    await asyncio.sleep(0.6 * INTERVAL)
    observed.add("2")
    await asyncio.sleep(0.6 * INTERVAL)

    assert observed.calls[0] == ("metrics", ["1", "2"])


async def test_a_batch_is_observed_in_the_next_turn_of_the_loop() -> None:
    observed = Observed()
    observed.add(*map(str, range(BATCH)))
    assert observed.calls == []
    await asyncio.sleep(0)

    assert [len(ids) for _, ids in observed.calls] == [BATCH] * 2


@pytest.mark.parametrize("batches", [1, 3])
async def test_a_full_batch_is_observed_at_once(batches: int) -> None:
    observed = Observed()
    observed.add(*map(str, range(batches * MAX_PENDING)))

    assert [len(ids) for _, ids in observed.calls] == [MAX_PENDING] * 2 * batches
    await asyncio.sleep(2 * INTERVAL)
    assert len(observed.calls) == 2 * batches


async def test_a_flush_observes_what_is_pending_and_nothing_else() -> None:
    observed = Observed()
    observed.batch.flush()
    assert observed.calls == []
    observed.add("1")
    observed.batch.flush()
    observed.batch.flush()

    assert observed.calls == [("metrics", ["1"]), ("audit", ["1"])]


async def test_the_time_is_that_of_the_decision() -> None:
    seen: list[float] = []
    clock = Clock(5)
    batch = Batch(clock, lambda observed: seen.extend(one.time for one in observed))
    batch.add(AuthRequest("api", b"", None, "GET", b""), DECISION, 1e-3)
    clock.now = 9
    batch.flush()

    assert seen == [5]
