"""The command `m2m-verifier demo`."""

import signal
import sys
import time

from verifier.demo import walk
from verifier.demo.processes import ProcessError
from verifier.demo.stack import Stack
from verifier.server import signals

POLL = 0.2
"""Seconds between two looks at signals, at the parts and at the verifier's log."""


class _Stopped(Exception):
    """A signal asked the demo to stop."""


def run(port: int = 8080, check: bool = False) -> int:
    """Run the demo until Ctrl-C or SIGTERM (exit status 0), or until a part of it dies (1).

    With `check` it runs the self-test instead: 0 if each step gave the expected answer, else 1.
    """
    received: list[int] = []

    def watch() -> None:
        if received:
            raise _Stopped

    def say(part: str) -> None:
        print(f"==> starting {part}", flush=True)

    # The handlers set a flag: an exception could interrupt the start of a process that would then be left running.
    for number in (*signals.SIGNALS, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.append(number))
    signals.unblock()
    try:
        if check:
            with Stack(port, watch=watch) as stack:
                return _check(stack, watch)
        with Stack(port, audit=True, watch=watch, say=say) as stack:
            print(walk.instructions(stack), flush=True)
            while True:
                watch()
                stack.require_alive()
                print(stack.verifier.child.new_lines(), end="", file=sys.stderr, flush=True)
                time.sleep(POLL)
    except _Stopped:
        return 1 if check else 0  # a self-test that did not finish did not pass
    except ProcessError as error:
        print(f"m2m-verifier demo: {str(error).strip()}", file=sys.stderr)
        return 1
    finally:
        signals.ignore()


def _check(stack: Stack, watch: walk.Watch) -> int:
    if walk.check(stack, watch):
        return 0
    print(stack.verifier.child.log, file=sys.stderr)
    return 1
