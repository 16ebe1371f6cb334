"""Runs the example: `make example-mlflow`."""

import hashlib
import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt

from examples.stack import Stack, Step, environment_python, local_environment, main
from verifier.demo.issuer import Client
from verifier.demo.processes import ProcessError

HERE = Path(__file__).parent
CLIENTS = {
    "trainer": Client(["read", "write"], claims={"custom:tenant": "acme"}),
    "dashboard": Client(["read"], claims={"custom:tenant": "acme"}),
}
KEY, OTHER_KEY = os.urandom(32), os.urandom(32)
KEY_FILE = {"kty": "oct", "kid": "internal-1", "alg": "HS256", "k": urlsafe_b64encode(KEY).decode().rstrip("=")}


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
    """What MLflow's client does with a token, and the exception that must come of it: class, code, HTTP status."""

    title: str
    token: Callable[[Stack], str]
    action: str
    exception: tuple[str, str, int] | None = None


# No calls to other hosts, and an error of a proxy is soon an exception.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
UNAUTHORIZED, FORBIDDEN = ("MlflowException", "UNAUTHENTICATED", 401), ("MlflowException", "PERMISSION_DENIED", 403)
CALLS = (
    Call("MLflow's client logs a run with the token of its environment", lambda stack: stack.token("trainer"), "log"),
    Call("A client with the scope read searches runs", lambda stack: stack.token("dashboard"), "search"),
    Call("It may not log a run: an exception for 403", lambda stack: stack.token("dashboard"), "log", FORBIDDEN),
    Call("Without a token: an exception for 401", lambda _: "", "search", UNAUTHORIZED),
    Call("A background job logs a run with its own HS256 token", lambda _: internal_token(KEY), "log"),
    Call(
        "An HS256 token of another key: an exception for 401", lambda _: internal_token(OTHER_KEY), "log", UNAUTHORIZED
    ),
)
ARRIVED = {
    "The client's run arrived with its user, tenant, request id and token": (0, "trainer"),
    "The job's run arrived with the job's user, tenant, request id and token": (4, "user-42"),
}  # the number of the call, and the user
FORGED = "A forged user has no effect; the request id of the client is kept"
TITLES = (*(call.title for call in CALLS), *ARRIVED, FORGED)


def steps(stack: Stack) -> Iterator[Step]:
    """Each call, how two of them arrived, and forged headers."""
    tokens = [call.token(stack) for call in CALLS]
    for call, outcome in zip(CALLS, ask(stack, tokens), strict=True):
        exception = (outcome.get("exception"), outcome.get("error_code"), outcome.get("status"))
        yield call.title, exception == (call.exception or (None, None, None)), json.dumps(outcome)
    for title, (number, user) in ARRIVED.items():
        sent = hashlib.sha256(f"Bearer {tokens[number]}".encode()).hexdigest()
        found = next((one for one in arrived(stack, "runs/create") if one["Authorization"] == sent), {})
        right = (found.get("X-User-ID"), found.get("X-Tenant-ID")) == (user, "acme") and bool(found["X-Request-ID"])
        yield title, right, json.dumps(found)
    headers = {"X-User-ID": "root", "X-Tenant-ID": "other", "X-Request-ID": "from-the-client"}
    headers["Authorization"] = f"Bearer {tokens[1]}"
    url = f"{stack.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    status = httpx.get(url, headers=headers, trust_env=False, timeout=60).status_code
    [found] = arrived(stack, "experiments/get-by-name")
    seen = (status, found["X-User-ID"], found["X-Tenant-ID"], found["X-Request-ID"])
    yield FORGED, seen == (200, "dashboard", "acme", "from-the-client"), json.dumps(found)


def ask(stack: Stack, tokens: list[str]) -> list[dict[str, Any]]:
    """What came of each call."""
    orders = "\n".join(json.dumps({"token": token, "action": call.action}) for call, token in zip(CALLS, tokens))
    done = subprocess.run(
        [environment_python("mlflow"), "-P", HERE / "client.py"],
        input=orders, env=local_environment(**SETTINGS, MLFLOW_TRACKING_URI=stack.url),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ProcessError(f"MLflow's client failed\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def arrived(stack: Stack, path: str) -> list[dict[str, Any]]:
    """What `recorder.py` noted about requests for paths with this end."""
    noted = map(json.loads, (stack.directory / "record").read_text().splitlines())
    return [one for one in noted if one["path"].endswith(path)]


@contextmanager
def running() -> Iterator[Stack]:
    """The stack with MLflow's server behind it."""
    stack = Stack(HERE, CLIENTS)
    (stack.directory / "internal-keys.json").write_text(json.dumps({"keys": [KEY_FILE]}))
    with stack:
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
        stack.start(command, local_environment(**SETTINGS, **paths), path="/health")
        yield stack


if __name__ == "__main__":
    sys.exit(main(running, steps))
