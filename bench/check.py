"""Before a side is measured it must be right: a fast wrong answer is worth nothing."""

from __future__ import annotations

from bench.load.requests import render, template
from bench.plan import Target
from bench.servers import BenchError, get
from bench.sides.context import Context
from bench.tokens import client_id

FIRST_CLIENT = client_id(0)  # every file of good tokens begins with this one's


def ask(context: Context, target: Target, token: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to the request that is measured too."""
    line, *lines = render(template(target), token, 0).decode().rstrip().split("\r\n")
    headers = dict(header.split(": ", 1) for header in lines)
    status, answered, _ = get(context.ports[target.port], line.split(" ")[1], headers)
    return status, answered


def check(context: Context, target: Target) -> None:
    """Raises BenchError unless the target tells good tokens from bad ones, and names the right client."""
    expected = {"hot": 200}  # none of COLD: it would be known then
    if target.verifies:
        expected |= {"bad": 401, "junk": 401, "flood": 401, "expired": 401}
        if target.checks_scope:
            expected["no-scope"] = 403
    if target.verifier != "node-fast-jwt":  # it was given one key
        expected["es256-one"] = 200
    for name, status in expected.items():
        got, headers = ask(context, target, context.tokens.first(name))
        if got != status:
            raise BenchError(f"{target.name} answers {got} instead of {status} to a token of {name!r}")
        if status == 200 and target.verifies:
            seen = headers.get("x-seen-client" if target.proxied else "x-m2m-client-id")
            if seen != FIRST_CLIENT:
                raise BenchError(f"{target.name} names the client {seen!r} instead of {FIRST_CLIENT!r}")


def check_status(context: Context, target: Target, load: str, status: int) -> None:
    """The exact status of a denial: wrk only counts what is above 399."""
    if status < 400:
        return
    got, _ = ask(context, target, context.tokens.first(load))
    if got != status:
        raise BenchError(f"{target.name} answers {got} instead of {status} to a token of {load!r}")


def counters(context: Context, verifier: str) -> dict[str, int]:
    """What a verifier reports of itself: tokens that its cache knew (`hits`), audit lines that it dropped (`dropped`).

    Empty for the sides that report nothing.
    """
    if verifier.startswith("ours"):
        text = get(context.ports[f"{verifier}-metrics"], "/metrics")[2].decode()
        return {
            "hits": metric(text, 'm2m_verifier_token_cache_requests_total{result="hit"}'),
            "dropped": metric(text, "m2m_verifier_audit_lines_dropped_total"),
        }
    if verifier.startswith("envoy"):
        text = get(context.ports[f"{verifier}-admin"], "/stats?filter=jwt_cache_hit")[2].decode()
        return {"hits": sum(int(line.rpartition(": ")[2]) for line in text.splitlines())}
    return {}


def metric(exposition: str, series: str) -> int:
    """One series of a Prometheus exposition; 0 where it is not there yet."""
    for line in exposition.splitlines():
        if line.startswith(series + " "):
            return int(float(line.rpartition(" ")[2]))
    return 0
