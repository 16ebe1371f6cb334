"""SQL over Parquet files. What a request sees and may write depends on `X-M2M-Role` alone: nginx sets it.

    POST /query         {"sql": "SELECT …"}              the rows, as a list of lists
    POST /tables/NAME   {"rows": [{"column": value}, …]}  appends a file to the table

In production the service would call `sts:AssumeRole` with the role, and Lake Formation would apply its grants to the
temporary credentials. Here GRANTS takes the place of Lake Formation's table of grants.
"""

import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MAX_ROWS, MAX_MEMORY = 10_000, "256MB"


@dataclass(frozen=True)
class Grant:
    """What one role may do: the columns that it reads of each table, and the tables that it appends to."""

    reads: dict[str, str]
    writes: tuple[str, ...] = ()


GRANTS = {
    "arn:aws:iam::123456789012:role/lake-etl": Grant({"orders": "*"}, writes=("orders",)),
    "arn:aws:iam::123456789012:role/lake-reader": Grant({"orders": "id, country, amount"}),  # not the customer
}


class Lake:
    """A folder with a subfolder of Parquet files for each table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def query(self, grant: Grant, sql: str) -> list[tuple[Any, ...]]:
        """The rows. The statement runs in a database that holds what the role may read, and reaches no file."""
        with duckdb.connect(config={"memory_limit": MAX_MEMORY, "threads": 1}) as database:
            for table, columns in grant.reads.items():
                files = str(self.folder / table / "*.parquet")
                database.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM read_parquet(?)", [files])
            database.execute("SET enable_external_access = false; SET lock_configuration = true")
            rows: list[tuple[Any, ...]] = database.execute(sql).fetchmany(MAX_ROWS)
            return rows

    def append(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Add one Parquet file."""
        target = self.folder / table / f"{uuid.uuid4()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        source = target.with_suffix(".json")
        source.write_text(json.dumps(rows))
        with duckdb.connect() as database:
            database.read_json(str(source)).write_parquet(str(target.with_suffix(".parquet")))
        source.unlink()


def application(lake: Lake) -> Starlette:
    """The ASGI application."""

    async def query(request: Request) -> JSONResponse:
        grant = GRANTS.get(request.headers.get("X-M2M-Role", ""))
        if grant is None:
            return JSONResponse({"error": "the role has no grant"}, 403)
        try:
            rows = await run_in_threadpool(lake.query, grant, (await request.json())["sql"])
        except duckdb.Error as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"role": request.headers["X-M2M-Role"], "rows": rows})

    async def append(request: Request) -> JSONResponse:
        grant, table = GRANTS.get(request.headers.get("X-M2M-Role", "")), request.path_params["table"]
        if grant is None or table not in grant.writes:
            return JSONResponse({"error": f"the role may not write {table}"}, 403)
        await run_in_threadpool(lake.append, table, (await request.json())["rows"])
        return JSONResponse({"table": table, "client": request.headers["X-M2M-Client-ID"]}, 201)

    return Starlette(
        routes=[Route("/query", query, methods=["POST"]), Route("/tables/{table}", append, methods=["POST"])]
    )


if __name__ == "__main__":
    uvicorn.run(application(Lake(Path(sys.argv[2]))), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
