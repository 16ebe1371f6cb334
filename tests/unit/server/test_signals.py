"""Signals wait while they are blocked, and set an event once the loop runs. Each test is a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import asyncio, os, signal
from verifier.server import signals
def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
"""
CASES = {
    "before the loop runs a signal ends the process": "signals.exit_at_once(); send(); print('not reached')",
    "a blocked signal waits": "signals.exit_at_once(); signals.block(); send(); print('ok')",
    "a pending signal is delivered": "signals.exit_at_once(); signals.block(); send(); signals.unblock(); print('no')",
    "signals are blocked for a while": """
signals.exit_at_once()
with signals.blocked():
    send()
    print('ok', flush=True)
print('not reached')
""",
    "what was blocked stays blocked": """
signals.block()
with signals.blocked():
    send()
send()
print('ok')
""",
    "a signal sets the event": """
async def main():
    stop = signals.stop_event()
    assert not stop.is_set()
    for number in signals.SIGNALS:
        stop.clear()
        send(number)
        await stop.wait()
    print('ok')
asyncio.run(main())
""",
    "after the end a signal does nothing, in whichever thread it arrives": """
import threading
async def main():
    signals.stop_event()
    signals.ignore()
asyncio.run(main())
waiting = threading.Event()
threading.Thread(target=waiting.wait).start()
signals.block()
for number in signals.SIGNALS:
    send(number)
waiting.set()
print('ok')
""",
    "a pending signal sets the event": """
async def main():
    await signals.stop_event().wait()
    print('ok')
signals.block()
send()
asyncio.run(main())
""",
}


@pytest.mark.parametrize("code", CASES.values(), ids=CASES)
def test_a_signal(code: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == ("ok\n" if "'ok'" in code else "")
