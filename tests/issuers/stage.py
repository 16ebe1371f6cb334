"""Issuers as processes, and the configuration that docs/issuers.md says to write for them."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any, NoReturn

import pytest
import yaml

from tests.e2e.stage import Serve
from tests.ops.pages import DOCS
from tests.programs import CACHE, run

PATIENCE = 300.0  # seconds that an issuer may take to start on a busy machine


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
    environment = {"PATH": os.environ["PATH"], "CLIENT_ID": client, "CLIENT_SECRET": secret}
    done = run("bash", "-euo", "pipefail", "-c", script, env=environment)
    return str(json.loads(done.stdout)["access_token"])


def verdict(serve: Serve, token: str) -> tuple[int, str]:
    """Status and, of a refusal, the reason; of an allowed request, the client."""
    answer = serve.ask(token)
    return answer.status_code, answer.headers.get("X-M2M-Reason") or answer.headers["X-M2M-Client-ID"]
