"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import add
from typing import Any

from prometheus_client import Metric

from verifier.observe.metrics import MAX_CLIENTS, OTHER_CLIENTS

# Gauges of which the lowest value of all processes counts; all other values are added up.
_LOWEST = frozenset(
    {
        "m2m_verifier_jwks_last_success_timestamp_seconds",
        "m2m_verifier_jwks_keys",
        "m2m_verifier_config_last_reload_successful",
        "m2m_verifier_build_info",
        "process_start_time_seconds",
        "process_max_fds",
    }
)


def merge(parts: Iterable[list[Metric]]) -> list[Metric]:
    """Add up counters, histograms and most gauges."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in chain.from_iterable(parts):
        families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        found = values.setdefault(family.name, {})
        combine: Any = min if family.name in _LOWEST else add
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            found[key] = combine(found[key], sample.value) if key in found else sample.value
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return list(families.values())


class ClientLimit:
    """Each process names its first clients; their sum names ``MAX_CLIENTS`` in all, and always the same."""

    def __init__(self) -> None:
        self._clients: set[tuple[str, str]] = set()

    def apply(self, families: list[Metric]) -> list[Metric]:
        """The same families, with further clients called ``other``."""
        for sample in chain.from_iterable(
            one.samples for one in families if one.name == "m2m_verifier_client_decisions"
        ):
            client = sample.labels["issuer"], sample.labels["client_id"]
            if client not in self._clients and len(self._clients) >= MAX_CLIENTS:
                sample.labels["client_id"] = OTHER_CLIENTS
            elif client[1] != OTHER_CLIENTS:
                self._clients.add(client)
        return families
