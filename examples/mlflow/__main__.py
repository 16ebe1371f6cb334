"""Runs the example: `make example-mlflow`."""

import hashlib
import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt

from examples.stack import Stack, Step, environment_python, main
from verifier.demo.issuer import Client

HERE = Path(__file__).parent
CLIENTS = {
    "trainer": Client(["read", "write"], claims={"custom:tenant": "acme"}),
    "dashboard": Client(["read"], claims={"custom:tenant": "acme"}),
}
KEY, OTHER_KEY = os.urandom(32), os.urandom(32)
KEY_FILE = {"kty": "oct", "kid": "internal-1", "alg": "HS256", "k": urlsafe_b64encode(KEY).decode().rstrip("=")}
RUN = "api/2.0/mlflow/runs/create"


def internal_token(key: bytes) -> str:
    """What the internal service gives to the background job that it starts for a user."""
    claims = {
        "iss": "internal",
        "aud": "mlflow",
        "client_id": "nightly",
        "gty": "client-credentials",
        "sub": "user-42",
        "custom:tenant": "acme",
        "scope": "read write",
        "exp": int(time.time()) + 300,
    }
    return jwt.encode(claims, key, "HS256", headers={"kid": "internal-1"})


@dataclass(frozen=True)
class Call:
    """What MLflow's client does with a token, and what must come of it; `error` None: it works."""

    title: str
    token: str
    action: str
    error: tuple[str, str, int] | None = None
    user: str | None = None
    """The `X-User-ID` that arrives with a new run."""


def calls(stack: Stack) -> list[Call]:
    """In this order, with fresh tokens."""
    trainer, dashboard = stack.token("trainer"), stack.token("dashboard")
    unauthorized, forbidden = ("MlflowException", "UNAUTHENTICATED", 401), ("MlflowException", "PERMISSION_DENIED", 403)
    return [
        Call("MLflow's client logs a run with the token of its environment", trainer, "log", user="trainer"),
        Call("A client with the scope read searches runs", dashboard, "search"),
        Call("It may not log a run: MlflowException for 403", dashboard, "log", forbidden),
        Call("Without a token: MlflowException for 401", "", "search", unauthorized),
        Call("A background job logs a run with its own HS256 token", internal_token(KEY), "log", user="user-42"),
        Call("An HS256 token of another key: MlflowException for 401", internal_token(OTHER_KEY), "log", unauthorized),
    ]


def steps(stack: Stack) -> Iterator[Step]:
    """Each call of MLflow's client, what arrived with it, and a forged header."""
    planned = calls(stack)
    for call, outcome in zip(planned, ask(stack, planned), strict=True):
        error = (outcome.get("exception"), outcome.get("error_code"), outcome.get("status"))
        yield call.title, error == (call.error or (None, None, None)), json.dumps(outcome)
    for call in (call for call in planned if call.user):
        sent = hashlib.sha256(f"Bearer {call.token}".encode()).hexdigest()
        [found] = [one for one in arrived(stack, RUN) if one["Authorization"] == sent]  # Authorization is untouched
        right = (found["X-User-ID"], found["X-Tenant-ID"]) == (call.user, "acme") and bool(found["X-Request-ID"])
        yield f"It arrived with user, tenant, request id and its own token: {call.user}", right, json.dumps(found)
    yield forged(stack)


def forged(stack: Stack) -> Step:
    """A request with a header that only nginx may set."""
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    sent = {"X-User-ID": "root", "X-Tenant-ID": "other", "X-Request-ID": "from-the-caller"}
    headers = sent | {"Authorization": f"Bearer {stack.token('dashboard')}"}
    status = httpx.get(stack.url + path, headers=headers, trust_env=False, timeout=60).status_code
    found = arrived(stack, path.partition("?")[0])[-1]
    seen = (status, found["X-User-ID"], found["X-Tenant-ID"], found["X-Request-ID"])
    right = seen == (200, "dashboard", "acme", "from-the-caller")
    return "A forged user has no effect; the caller's request id is kept", right, json.dumps(found)


def ask(stack: Stack, planned: list[Call]) -> list[dict[str, Any]]:
    """What came of each call, in MLflow's own process."""
    orders = "\n".join(json.dumps({"token": call.token, "action": call.action}) for call in planned)
    done = subprocess.run(
        [environment_python("mlflow"), "-P", HERE / "client.py"],
        input=orders, env=environment() | {"MLFLOW_TRACKING_URI": stack.url},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def arrived(stack: Stack, path: str) -> list[dict[str, Any]]:
    """What `recorder.py` noted about requests for a path."""
    noted = map(json.loads, (stack.directory / "record").read_text().splitlines())
    return [one for one in noted if one["path"].strip("/") == path.strip("/")]


def environment() -> dict[str, str]:
    """MLflow's, without calls to hosts outside."""
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return own | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@contextmanager
def running() -> Iterator[Stack]:
    """The stack with MLflow's server behind it."""
    with Stack(HERE, CLIENTS, files={"internal-keys.json": json.dumps({"keys": [KEY_FILE]})}) as stack:
        python = environment_python("mlflow")
        plugin = stack.directory / "recorder-1.dist-info"  # how MLflow finds an app by its name
        plugin.mkdir()
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: recorder\nVersion: 1\n")
        (plugin / "entry_points.txt").write_text("[mlflow.app]\nrecorder = recorder:app\n")
        command = [python, "-P", "-m", "mlflow", "server", "--app-name", "recorder", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(stack.service_port)]
        command += ["--backend-store-uri", f"sqlite:///{stack.directory}/mlflow.db"]
        command += ["--artifacts-destination", str(stack.directory / "artifacts")]
        paths = {"PYTHONPATH": f"{stack.directory}:{HERE}", "RECORD": str(stack.directory / "record")}
        stack.start(command, environment() | paths, path="/health")
        yield stack


if __name__ == "__main__":
    sys.exit(main(running, steps))
