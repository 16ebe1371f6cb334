"""SQL over Parquet files. What a request may see and write depends on `X-M2M-Role` alone, which nginx sets.

    POST /query          a SELECT; answers with the rows
    POST /tables/orders  a JSON list of rows; appends a file to the table

In production the service would call `sts:AssumeRole` with the role, and Lake Formation would apply its grants to the
temporary credentials. Here GRANTS takes the place of Lake Formation's grants.
"""

import json
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

COLUMNS = {"orders": {"id": "INTEGER", "country": "VARCHAR", "amount": "INTEGER", "customer": "VARCHAR"}}
MAX_ROWS, MAX_SECONDS, MAX_MEMORY = 10_000, 30.0, "256MB"  # of one query


@dataclass(frozen=True)
class Grant:
    """What one role may do: the columns that it reads of each table, and the tables that it appends to."""

    reads: dict[str, str]
    writes: tuple[str, ...] = ()


GRANTS = {
    "arn:aws:iam::123456789012:role/lake-etl": Grant({"orders": "*"}, writes=("orders",)),
    "arn:aws:iam::123456789012:role/lake-reader": Grant({"orders": "id, country, amount"}),  # not the customer
}
LAKE = Path(sys.argv[2])  # a folder of Parquet files for each table


def query(grant: Grant, sql: str) -> list[tuple[Any, ...]]:
    """The rows. The statement runs in a database that holds what the role may read, and reaches no file."""
    with duckdb.connect(config={"memory_limit": MAX_MEMORY, "threads": 1}) as database:
        for table, columns in grant.reads.items():
            files = str(LAKE / table / "*.parquet")
            database.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM read_parquet(?)", [files])
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        timer = threading.Timer(MAX_SECONDS, database.interrupt)
        timer.start()
        try:
            rows: list[tuple[Any, ...]] = database.execute(sql).fetchmany(MAX_ROWS)
            return rows
        finally:
            timer.cancel()


def append(table: str, rows: bytes) -> None:
    """Add one Parquet file to a table."""
    target = LAKE / table / f"{uuid.uuid4()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    source = target.with_suffix(".json")
    source.write_bytes(rows)
    try:
        with duckdb.connect() as database:
            database.read_json(str(source), columns=COLUMNS[table]).write_parquet(str(target.with_suffix(".parquet")))
    finally:
        source.unlink()


def answer(status: int, **content: Any) -> Response:
    """JSON, with dates and decimals as strings."""
    return Response(json.dumps(content, default=str), status, media_type="application/json")


async def on_query(request: Request) -> Response:
    """`POST /query`."""
    role = request.headers.get("X-M2M-Role", "")
    if role not in GRANTS:
        return answer(403, error="the role has no grant")
    try:
        rows = await run_in_threadpool(query, GRANTS[role], (await request.body()).decode())
    except (duckdb.Error, UnicodeDecodeError) as error:
        return answer(400, role=role, error=str(error).partition("\n")[0])
    return answer(200, role=role, rows=rows)


async def on_append(request: Request) -> Response:
    """`POST /tables/NAME`."""
    role, table = request.headers.get("X-M2M-Role", ""), request.path_params["table"]
    if role not in GRANTS or table not in GRANTS[role].writes:
        return answer(403, role=role, error=f"the role may not write {table}")
    try:
        await run_in_threadpool(append, table, await request.body())
    except duckdb.Error as error:
        return answer(400, role=role, error=str(error).partition("\n")[0])
    return answer(201, role=role)


app = Starlette(
    routes=[Route("/query", on_query, methods=["POST"]), Route("/tables/{table}", on_append, methods=["POST"])]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
