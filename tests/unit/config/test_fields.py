"""The types of values that several sections share: the names of claims, and sections without lines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.config.support import MakeConfig, Problems, issuer

STEPS = ["kubernetes.io", "namespace"]


@pytest.mark.parametrize(
    ("written", "name"),
    [("realm_access.roles", "realm_access.roles"), (STEPS, tuple(STEPS)), (["https://a/roles"], ("https://a/roles",))],
    ids=repr,
)
def test_a_claim_is_named_by_a_text_or_by_steps(make_config: MakeConfig, written: Any, name: Any) -> None:
    config = make_config(issuer(claims={"client_id": written, "scope": written}) | {"headers": {"X-A": written}})

    assert config.headers == {"X-A": name}
    assert (config.issuers[0].profile.client_id, config.issuers[0].profile.scope) == ((name,), name)


@pytest.mark.parametrize("written", ["", 5, True, [], [""], ["a", 5], [["a"]], {"a": "b"}], ids=repr)
def test_nothing_else_names_a_claim(problems: Problems, written: Any) -> None:
    message = "must be the name of a claim, or a list of names for one that is nested"
    found = problems(issuer(claims={"scope": written}) | {"headers": {"X-A": written}})

    assert [one.split(": ", 1)[1] for one in found] == [
        f"issuers[0].claims.scope: {message}", f"headers.X-A: {message}",
    ]  # fmt: skip


@pytest.mark.parametrize("section", ["policies", "roles", "revoked", "headers", "cache"])
def test_a_section_without_lines_counts_as_absent(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture, section: str
) -> None:
    assert make_config({**lab, section: None}).policies.by_name.keys() == {"default"}
    assert caplog.messages == []


def test_a_list_without_value_counts_as_absent_with_one_warning(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lab["issuers"][0]["clients"] = None

    assert make_config(lab).issuers[0].clients is None
    assert [message.split(" in ")[0] for message in caplog.messages] == ["clients has no value"]
