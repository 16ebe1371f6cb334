"""MLflow's own client, as a training job uses it, with its token in `MLFLOW_TRACKING_TOKEN`.

Reads lines of JSON, `{"token": …, "action": "search" or "log"}`, and prints what came of each. The server's URL is in
`MLFLOW_TRACKING_URI`.
"""

import json
import os
import sys
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException


def search() -> Any:
    """The ids of the runs."""
    return [run.info.run_id for run in mlflow.search_runs(search_all_experiments=True, output_format="list")]


def log() -> Any:
    """The id of a new run with a parameter, a metric and an artifact of 2 MB."""
    with mlflow.start_run() as run:
        mlflow.log_param("alpha", 0.5)
        mlflow.log_metric("rmse", 0.25)
        mlflow.log_text("weight " * 300_000, "model.txt")
    return run.info.run_id


def main() -> None:
    """Take each line."""
    for line in sys.stdin:
        order = json.loads(line)
        os.environ["MLFLOW_TRACKING_TOKEN"] = order["token"]  # the client reads it for each request
        try:
            result = {"result": {"search": search, "log": log}[order["action"]]()}
        except MlflowException as error:
            status = error.get_http_status_code()
            result = {"exception": type(error).__name__, "error_code": error.error_code, "status": status}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
