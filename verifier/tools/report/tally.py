"""What audit lines say, client by client, and what a configuration would change, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from sys import getsizeof

from verifier.observe.audit import MAX_TEXT
from verifier.reasons import Reason
from verifier.tools.report.lines import Record
from verifier.tools.report.replay import NOT_REPLAYED, Replay

MAX_BYTES = 48 * 1024 * 1024  # clients, scopes and changes that are kept; further ones are counted together
ROW_BYTES = 1200  # of a client or a change beside its texts
SCOPE_BYTES = 64  # of a granted scope beside its text: places in two sets
MAX_NAMED = 5  # examples of a change, and lines that are named because they are no audit lines
MAX_EXAMPLE = 200  # characters
OTHER = "(other)"


@dataclass(slots=True)
class Client:
    """The requests of one client, or those of one issuer without a verified token."""

    issuer: str
    client_id: str
    requests: int = 0
    refusals: Counter[Reason] = field(default_factory=Counter)
    would_deny: Counter[Reason] = field(default_factory=Counter)
    """Refused in report mode, and so let through."""
    granted: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)
    first_seen: str = ""
    last_seen: str = ""
    last_scopes: int = 0
    """A hash: most requests have the scopes of the one before, and those may be long."""
    changes: Counter[str] = field(default_factory=Counter)
    """Requests by the kind of their change."""

    @property
    def refused(self) -> int:
        """Requests that nginx did not let through."""
        return self.refusals.total()

    @property
    def never_needed(self) -> set[str]:
        """Scopes that no request needed, as far as rules and roles tell."""
        return self.granted - self.needed


REFUSED, ALLOWED, OTHER_ROLE = "would_be_refused", "would_be_allowed", "other_role"
"""The kinds of a change."""


@dataclass(slots=True)
class Change:
    """Requests that the configuration answers differently, for one cause."""

    kind: str
    issuer: str
    client_id: str
    policy: str
    cause: str
    """The reason of the new refusal, or of the old one, or both roles."""
    requests: int = 0
    last_seen: str = ""
    examples: list[str] = field(default_factory=list)
    """Method, host and path of some, in the order of their lines."""


class Tally:
    """What the lines say, in bounded memory; without ``replay``, nothing about a configuration."""

    def __init__(self, replay: Replay | None, *, max_bytes: int = MAX_BYTES) -> None:
        self.replay = replay
        self.requests = self.passed = self.broken = self.not_replayed = self.cut = 0
        self.broken_lines: list[str] = []
        """File, number and cause of the first ones."""
        self.clients: dict[tuple[str, str], Client] = {}
        self.changes: dict[tuple[str, ...], Change] = {}
        self.is_full = False
        """Whether there were more clients, changes or scopes than are kept."""
        self._room = max_bytes

    def add_broken(self, source: str, number: int, cause: ValueError) -> None:
        """Count a line that is no audit line."""
        self.broken += 1
        if len(self.broken_lines) < MAX_NAMED:
            self.broken_lines.append(f"{source}:{number}: {cause}")

    def add(self, record: Record) -> None:
        """Count one request."""
        key = record.issuer, record.client_id
        client = self.clients.get(key)
        if client is None:
            client = self._new_client(*key)
        self.requests += 1
        self.passed += record.passed
        client.requests += 1
        if record.reason is not Reason.OK:
            (client.would_deny if record.passed else client.refusals)[record.reason] += 1
        client.last_seen = max(client.last_seen, record.time)
        client.first_seen = min(client.first_seen or record.time, record.time)
        if hash(record.scope) != client.last_scopes:
            self._grant(client, record.scope)
        if self.replay is not None:
            self._compare(self.replay, client, record)

    def _new_client(self, issuer: str, client_id: str) -> Client:
        if not self._takes(ROW_BYTES, issuer, client_id):
            issuer, client_id = "", OTHER
        return self.clients.setdefault((issuer, client_id), Client(issuer, client_id))

    def _grant(self, client: Client, scope: str) -> None:
        client.last_scopes = hash(scope)
        new = {one for one in scope.split(" ") if one} - client.granted
        if self._takes(SCOPE_BYTES * len(new), *new):
            client.granted |= new

    def _takes(self, size: int, *texts: str) -> bool:
        """Whether there is room for this many bytes and these texts, which is then taken."""
        size += sum(map(getsizeof, texts))
        if self.is_full or size > self._room:
            self.is_full = True
            return False
        self._room -= size
        return True

    def _compare(self, replay: Replay, client: Client, record: Record) -> None:
        outcome = replay.outcome(record)
        self.not_replayed += record.reason in NOT_REPLAYED
        self.cut += len(record.path) >= MAX_TEXT or "[token]" in record.path
        if not outcome.needed <= client.needed:
            client.needed |= outcome.needed & client.granted
        if record.passed and not outcome.passes:
            self._change(REFUSED, outcome.reason, client, record)
        elif outcome.passes and not record.passed:
            self._change(ALLOWED, record.reason, client, record)
        elif record.reason is outcome.reason is Reason.OK and record.role != outcome.role:
            self._change(OTHER_ROLE, f"{record.role or 'none'} -> {outcome.role or 'none'}", client, record)

    def _change(self, kind: str, cause: str, client: Client, record: Record) -> None:
        client.changes[kind] += 1
        key = kind, record.issuer, record.client_id, record.policy, cause
        change = self.changes.get(key)
        if change is None:
            if not self._takes(ROW_BYTES + MAX_NAMED * MAX_EXAMPLE, *key):
                key = kind, "", OTHER, "", ""
            change = self.changes.setdefault(key, Change(*key))
        change.requests += 1
        change.last_seen = max(change.last_seen, record.time)
        example = f"{record.method} {record.host}{record.path}"[:MAX_EXAMPLE]
        if len(change.examples) < MAX_NAMED and example not in change.examples:
            change.examples.append(example)

    @property
    def refused(self) -> int:
        """Requests that nginx did not let through."""
        return self.requests - self.passed

    @property
    def takes_access(self) -> bool:
        """Whether a request that passed would be refused, or reach the API with another role."""
        return any(change.kind != ALLOWED for change in self.changes.values())
