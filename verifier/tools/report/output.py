"""The report as a table, JSON or CSV, and what it cannot tell. No control character of a line reaches the output."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, TextIO, TypeVar

from verifier.tools.report.replay import NOT_REPLAYED
from verifier.tools.report.tally import ALLOWED, OTHER, OTHER_ROLE, REFUSED, Change, Client, Tally

_Counted = TypeVar("_Counted", Client, Change)

MAX_SHOWN = 5  # scopes in one cell of the table; JSON and CSV have all
MAX_WIDTH = 80  # characters to which a column of the table is filled; a longer cell moves the rest of its row
FORMULA = ("=", "+", "-", "@")  # how a formula begins

TITLES = {
    REFUSED: "Would be refused, but were let through",
    OTHER_ROLE: "Would reach the API with another role",
    ALLOWED: "Would be let through, but were refused",
}


def printable(text: str) -> str:
    """Text for a terminal: control characters and all that is not ASCII are escaped."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def limits(tally: Tally) -> list[str]:
    """What these lines, or any, cannot tell."""
    found = []
    if tally.broken:
        named = ", ".join(tally.broken_lines)
        found.append(f"{tally.broken:,} lines are no audit lines and are not counted: {named}")
    if tally.is_full:
        found.append(
            f"There were more clients, changes or scopes than are kept: {OTHER} has the rest, without its scopes."
        )
    if not tally.passed:
        found.append("No line is about a request that was let through: with `audit: denied`, none is written.")
    if tally.replay is None:
        return [*found, "To see which scopes were needed and what would change, add --config FILE."]
    found += [f"No replayed line has the {printable(absent)}." for absent in sorted(tally.replay.absent)]
    if tally.not_replayed:
        reasons = ", ".join(sorted(NOT_REPLAYED))
        found.append(f"{tally.not_replayed:,} refusals stay as they are: a line lacks the cause of {reasons}.")
    if tally.cut:
        found.append(f"{tally.cut:,} lines have a path that the verifier cut or masked; it is replayed as written.")
    return [
        *found,
        "Lines do not contain the parameters of auth URLs (scope, client, issuer). Without --auth-url, what only they "
        "require is missing above, and refusals that they caused appear as let through.",
        "Policies, clients, scopes, roles and revocation are replayed, tokens are not: one that was valid counts as "
        "valid, one that was not stays refused, even if keys, audience or profile have changed.",
        "Lines do not contain queries, bodies and other claims. Requests that nginx answered from its cache have no "
        "line, and lines may have been dropped. An API may itself need scopes and roles that no rule needs.",
    ]


def _table(tally: Tally, assumptions: list[str], out: TextIO, _: TextIO) -> None:
    clients = _sorted(tally.clients.values())
    first = min(client.first_seen for client in clients)
    last = max(client.last_seen for client in clients)
    counted = f"{tally.requests:,} requests, {tally.passed:,} let through, {tally.refused:,} refused"
    print(printable(f"{counted}, from {_time(first)} to {_time(last)}"), end="\n\n", file=out)
    scopes = "GRANTED" if tally.replay is None else "GRANTED AND NEVER NEEDED"
    rows = [
        [
            *(_name(one), f"{one.requests:,}", f"{one.refused:,}", _time(one.last_seen), _refusals(one)),
            _few(one.granted if tally.replay is None else one.never_needed),
        ]
        for one in clients
    ]
    _write_rows(out, ["CLIENT", "REQUESTS", "REFUSED", "LAST SEEN", "REFUSALS", scopes], rows)
    if tally.replay is not None:
        print(f"\nWith {printable(', '.join(assumptions))}:", file=out)
        for kind, title in TITLES.items():
            changes = _sorted(change for change in tally.changes.values() if change.kind == kind)
            total = sum(change.requests for change in changes)
            print(f"\n{title}: requests {total:,}, clients {len({_name(one) for one in changes}):,}", file=out)
            if changes:
                header = ["CLIENT", "POLICY", "CAUSE", "REQUESTS", "LAST SEEN", "FOR EXAMPLE"]
                _write_rows(out, header, map(_change_row, changes))
    print("\nWhat these lines cannot tell:", file=out)
    print(*(f"- {printable(limit)}" for limit in limits(tally)), sep="\n", file=out)


def _change_row(change: Change) -> list[str]:
    requests, last_seen = f"{change.requests:,}", _time(change.last_seen)
    return [_name(change), change.policy, change.cause, requests, last_seen, change.examples[0]]


def _json(tally: Tally, assumptions: list[str], out: TextIO, _: TextIO) -> None:
    report: dict[str, Any] = {
        "requests": tally.requests,
        "refused": tally.refused,
        "broken_lines": tally.broken,
        "clients": _entries(tally),
        "replay": None,
        "limits": limits(tally),
    }
    if tally.replay is not None:
        report["replay"] = {"assumptions": assumptions, "not_replayed": tally.not_replayed}
        report["replay"] |= {kind: [] for kind in TITLES}
        for change in map(asdict, _sorted(tally.changes.values())):
            report["replay"][change.pop("kind")].append(change)
    print(json.dumps(report, indent=2).replace("\x7f", "\\u007f"), file=out)


def _csv(tally: Tally, _: list[str], out: TextIO, err: TextIO) -> None:
    """One row for each client; what the lines cannot tell goes to ``err``."""
    entries = _entries(tally)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(entries[0])
    writer.writerows([printable(_cell(value)) for value in entry.values()] for entry in entries)
    print(*map(printable, limits(tally)), sep="\n", file=err)


def _entries(tally: Tally) -> list[dict[str, Any]]:
    """The clients for JSON and CSV; what takes a configuration is None without one."""
    return [
        {
            "issuer": client.issuer,
            "client_id": client.client_id,
            "requests": client.requests,
            "refused": client.refused,
            "refusals": dict(client.refusals.most_common()),
            "would_deny": dict(client.would_deny.most_common()),
            "granted": sorted(client.granted),
            "never_needed": None if tally.replay is None else sorted(client.never_needed),
            "first_seen": client.first_seen,
            "last_seen": client.last_seen,
            **{kind: None if tally.replay is None else client.changes[kind] for kind in TITLES},
        }
        for client in _sorted(tally.clients.values())
    ]


def _cell(value: Any) -> str:
    """A cell of CSV; the apostrophe makes a spreadsheet take a text as it is."""
    if isinstance(value, dict):
        value = [f"{reason}={count}" for reason, count in value.items()]
    text = "" if value is None else " ".join(value) if isinstance(value, list) else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


WRITERS: dict[str, Callable[[Tally, list[str], TextIO, TextIO], None]] = {"table": _table, "json": _json, "csv": _csv}
"""By ``--format``. Each takes the tally, what is assumed where the lines are replayed, standard output and error."""


def _sorted(counted: Iterable[_Counted]) -> list[_Counted]:
    """The most requests first; the last seen, then the names, decide between equal ones."""
    return sorted(counted, key=lambda one: (-one.requests, one.last_seen, one.issuer, one.client_id))


def _name(one: Client | Change) -> str:
    return f"{one.issuer or '-'}/{one.client_id or '-'}"


def _time(time: str) -> str:
    return time[:19] + "Z"


def _refusals(client: Client) -> str:
    parts = [f"{reason} {count:,}" for reason, count in client.refusals.most_common()]
    parts += [f"{reason} {count:,} (report mode)" for reason, count in client.would_deny.most_common()]
    return ", ".join(parts) or "-"


def _few(scopes: Iterable[str]) -> str:
    ordered = sorted(scopes)
    further = len(ordered) - MAX_SHOWN
    return " ".join(ordered[:MAX_SHOWN]) + (f" and {further} more" if further > 0 else "") or "-"


def _write_rows(out: TextIO, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, up to MAX_WIDTH; counts are aligned to the right."""
    table = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [min(max(map(len, column)), MAX_WIDTH) for column in zip(*table)]
    numbers = [name in ("REQUESTS", "REFUSED") for name in header]
    for row in table:
        cells = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numbers))
        print("  ".join(cells).rstrip(), file=out)
