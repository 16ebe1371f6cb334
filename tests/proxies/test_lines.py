"""Each line of a block that guards does guard: without it the proxy refuses the block, or the table is wrong."""

from __future__ import annotations

import pytest

from tests.e2e.stage import free_port
from tests.proxies.stage import PROXIES, NotStartedError, Stage, is_refused_while_down, wrong
from tests.proxies.table import MAPPED, TABLE
from verifier.tools.guard import Guard


def is_noticed(parts: Stage, proxy: str, block: str) -> bool:
    """Whether the proxy refuses this block, or a row of the table is wrong with it."""
    try:
        with parts.running(proxy, block) as running:
            if any(wrong(row, running, running.send(row)) for row in TABLE):
                return True
        with parts.running(proxy, block, f"127.0.0.1:{free_port()}") as running:
            return not is_refused_while_down(running)
    except NotStartedError:
        return True


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_block_without_any_one_of_its_guarding_lines_is_noticed(proxy: str, parts: Stage) -> None:
    guard = Guard("api", tuple(MAPPED))
    lines = guard.block(proxy).splitlines()

    assert guard.block(proxy) == parts.guard(proxy)
    kept = [lines[number] for number in guard.guarding(proxy)
            if not is_noticed(parts, proxy, "\n".join(lines[:number] + lines[number + 1 :]) + "\n")]  # fmt: skip
    # Caddy removes these headers itself since 2.11.2; tests/unit/tools/test_guard.py looks at the lines for older ones.
    assert kept == [line for line in lines if line.strip().startswith("request_header -X-")]
