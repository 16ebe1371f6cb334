"""Runs the example: `make example-lake-query`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from examples.stack import Stack, Step, environment_python, main

HERE = Path(__file__).parent
CLIENTS = {"etl": ["write"], "reporting": ["read"], "monitoring": ["read"], "newcomer": ["other"]}
ETL, READER = (f"arn:aws:iam::123456789012:role/lake-{name}" for name in ("etl", "reader"))
ORDERS = json.dumps([
    {"id": 1, "country": "DE", "amount": 20, "customer": "c-17"},
    {"id": 2, "country": "FR", "amount": 5, "customer": "c-04"},
    {"id": 3, "country": "DE", "amount": 7, "customer": "c-17"},
])  # fmt: skip
TOTALS = "SELECT country, sum(amount)::INT FROM orders GROUP BY ALL ORDER BY ALL"
CUSTOMERS = "SELECT DISTINCT customer FROM orders ORDER BY ALL"


@dataclass(frozen=True)
class Case:
    """One request. `holds` is a part of the service's answer, or the reason of the verifier's refusal."""

    title: str
    client: str
    status: int
    holds: dict[str, Any] | str
    body: str = TOTALS
    path: str = "/query"
    role_sent: str = ""
    mutated: bool = False
    """Whether the token's signature is changed."""

    def take(self, stack: Stack) -> Step:
        """Send it with a new token."""
        token = stack.token(self.client)
        headers = {"Authorization": f"Bearer {token[:-8] + 'AAAAAAAA' if self.mutated else token}"}
        if self.role_sent:
            headers["X-M2M-Role"] = self.role_sent
        answer = httpx.post(stack.url + self.path, content=self.body, headers=headers, trust_env=False, timeout=60)
        reason = answer.headers.get("X-M2M-Reason")
        seen = reason or answer.json()
        right = seen == self.holds if isinstance(self.holds, str) else self.holds.items() <= seen.items()
        return self.title, right and answer.status_code == self.status, f"{answer.status_code} {seen}"


def write(title: str, client: str, status: int, holds: dict[str, Any] | str) -> Case:
    """A request that adds orders."""
    return Case(title, client, status, holds, ORDERS, "/tables/orders")


SUMS = {"role": READER, "rows": [["DE", 27], ["FR", 5]]}
CASES = (
    write("The ETL client writes, with the role of its id", "etl", 201, {"role": ETL}),
    Case("The ETL client reads every column", "etl", 200, {"role": ETL, "rows": [["c-04"], ["c-17"]]}, CUSTOMERS),
    Case("Reporting reads, with the role of its scope", "reporting", 200, SUMS),
    Case("Monitoring reads, with the role of its scope", "monitoring", 200, SUMS),
    Case("The reading role does not see the customers", "reporting", 400, {"role": READER}, CUSTOMERS),
    Case("SQL reaches no file", "etl", 400, {"role": ETL}, "SELECT * FROM read_text('/etc/hostname')"),
    Case("A role that the client sends itself has no effect", "reporting", 200, SUMS, role_sent=ETL),
    write("Reporting may not write", "reporting", 403, "insufficient_scope"),
    Case("An invalid token is refused", "etl", 401, "bad_signature", mutated=True),
    Case("A client with neither is refused", "newcomer", 403, "no_role"),
)
TOKENS = {"The ETL client gets a token": "etl", "Reporting gets a token": "reporting"}
TITLES = (*TOKENS, *(case.title for case in CASES))


@contextmanager
def running() -> Iterator[Stack]:
    """The stack with the service behind it, and an empty lake."""
    with Stack(HERE, CLIENTS) as stack:
        lake = str(stack.directory / "lake")
        stack.start([environment_python("lake-query"), "-P", str(HERE / "service.py"), str(stack.service_port), lake])
        yield stack


def steps(stack: Stack) -> Iterator[Step]:
    """Tokens, then requests."""
    for title, client in TOKENS.items():
        yield title, stack.token(client).count(".") == 2, f"from {stack.issuer.base}/oauth2/token"
    for case in CASES:
        yield case.take(stack)


if __name__ == "__main__":
    sys.exit(main(running, steps))
