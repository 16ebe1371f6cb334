"""MLflow's server as an app plugin (`mlflow server --app-name recorder`) that notes how requests arrive.

It writes a JSON line for each request to the file that `RECORD` names, with a hash of `Authorization` instead of the
token. A plugin like this is also the place where a team would use `X-User-ID` and `X-Tenant-ID`.
"""

import hashlib
import json
import os
from pathlib import Path

from mlflow.server.fastapi_app import app as mlflow_app
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

NOTED = ("X-User-ID", "X-Tenant-ID", "X-Request-ID", "X-M2M-Client-ID")


def note(scope: Scope) -> None:
    """Write one line."""
    headers = Request(scope).headers
    noted = {name: headers.get(name) for name in NOTED} | {"path": scope["path"]}
    noted["Authorization"] = hashlib.sha256(headers.get("Authorization", "").encode()).hexdigest()
    with Path(os.environ["RECORD"]).open("a") as record:
        record.write(json.dumps(noted) + "\n")


class Recorder:
    """An ASGI application. MLflow would take a function for a factory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request, then pass it to MLflow."""
        if scope["type"] == "http":
            note(scope)
        await mlflow_app(scope, receive, send)


app = Recorder()
