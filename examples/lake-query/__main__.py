"""Runs the example: `make example-lake-query`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from examples.stack import Stack, Step, environment_python, main
from verifier.demo.issuer import Client

HERE = Path(__file__).parent
SCOPES = {"etl": ["write"], "reporting": ["read"], "monitoring": ["read"], "newcomer": ["other"]}
ETL, READER = (f"arn:aws:iam::123456789012:role/lake-{name}" for name in ("etl", "reader"))
ORDERS = [
    {"id": 1, "country": "DE", "amount": 20, "customer": "c-17"},
    {"id": 2, "country": "FR", "amount": 5, "customer": "c-04"},
    {"id": 3, "country": "DE", "amount": 7, "customer": "c-17"},
]
TOTALS = "SELECT country, sum(amount)::INT FROM orders GROUP BY ALL ORDER BY ALL"
CUSTOMERS = "SELECT DISTINCT customer FROM orders ORDER BY ALL"


@dataclass(frozen=True)
class Case:
    """One request, and what its answer must be. `client` None: the token is not valid."""

    title: str
    client: str | None
    status: int
    rows: Any = None
    role: str | None = None
    path: str = "/query"
    sql: str = TOTALS
    headers: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    body: Any = None

    def take(self, stack: Stack) -> Step:
        """Send it: title, whether the answer is the expected one, and a summary of it."""
        token = stack.token(self.client) if self.client else stack.token("etl")[:-8] + "AAAAAAAA"
        headers = {"Authorization": f"Bearer {token}", **dict(self.headers)}
        with httpx.Client(base_url=stack.url, trust_env=False, timeout=30) as client:
            answer = client.post(self.path, json=self.body or {"sql": self.sql}, headers=headers)
        found = answer.json() if answer.headers.get("Content-Type") == "application/json" else {}
        reason = answer.headers.get("X-M2M-Reason")
        expected = (self.status, self.rows, self.role, self.reason)
        seen = f"{answer.status_code} {reason or answer.text}"
        return self.title, (answer.status_code, found.get("rows"), found.get("role"), reason) == expected, seen


WRITE: dict[str, Any] = {"path": "/tables/orders", "body": {"rows": ORDERS}}
ALL = [["DE", 27], ["FR", 5]]
CASES = (
    Case("The ETL client writes", "etl", 201, **WRITE),
    Case("The ETL client queries with the role of its id", "etl", 200, [["c-04"], ["c-17"]], ETL, sql=CUSTOMERS),
    Case("Reporting queries with the role of its scope", "reporting", 200, ALL, READER),
    Case("Monitoring queries with the same role", "monitoring", 200, ALL, READER),
    Case("The reading role does not see customers", "reporting", 400, sql=CUSTOMERS),
    Case(
        "A role that reporting sends itself has no effect",
        "reporting",
        200,
        ALL,
        READER,
        headers=(("X-M2M-Role", ETL),),
    ),
    Case("Reporting may not write", "reporting", 403, reason="insufficient_scope", **WRITE),
    Case("An invalid token is refused", None, 401, reason="bad_signature"),
    Case("A client with neither a role nor a scope that has one is refused", "newcomer", 403, reason="no_role"),
)


@contextmanager
def running() -> Iterator[Stack]:
    """The stack with the service behind it, and an empty lake."""
    with Stack(HERE, {name: Client(scopes) for name, scopes in SCOPES.items()}) as stack:
        lake = str(stack.directory / "lake")
        stack.start([environment_python("lake-query"), "-P", str(HERE / "service.py"), str(stack.service_port), lake])
        yield stack


def steps(stack: Stack) -> Iterator[Step]:
    """Each case."""
    return (case.take(stack) for case in CASES)


if __name__ == "__main__":
    sys.exit(main(running, steps))
