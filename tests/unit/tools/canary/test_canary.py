"""Rounds over TLS, and rounds in which nothing can be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.keys.servers import answer_with, make_certificate, server
from tests.unit.support import NOW, Clock
from verifier.tools.canary import CHECKS, Canary, Outcome, Settings

FILE = {"url": "https://127.0.0.1:9/", "token_file": "token", "identity": {"X-M2M-Client-ID": "canary"}}


@pytest.mark.parametrize(
    ("ca_file", "environment", "cause"),
    [
        ("missing.pem", {}, "missing.pem: No such file or directory"),
        (None, {"HTTPS_PROXY": "ftp://proxy.example"}, "HTTPS_PROXY: a proxy must be http or https"),
    ],
)
def test_without_a_connection_every_check_is_unknown_and_has_no_success(
    tmp_path: Path, ca_file: str | None, environment: dict[str, str], cause: str
) -> None:
    url = "https://api.example/" if environment else FILE["url"]
    settings = Settings.model_validate({**FILE, "url": url, "ca_file": ca_file}, context={"folder": tmp_path})
    canary = Canary(settings, clock=Clock(NOW), environment=environment)
    asyncio.run(canary.round())
    samples = {sample.name: sample.value for family in canary.collect() for sample in family.samples}

    assert {check for check, found in canary.results.items() if found.outcome is Outcome.UNKNOWN} == set(CHECKS)
    assert cause in str(canary.results["no_token"])
    assert canary.status == 2
    assert "m2m_verifier_canary_check_success" not in samples
    assert samples["m2m_verifier_canary_check_unknown"] == 1
    assert samples["m2m_verifier_canary_last_run_timestamp_seconds"] == NOW


@pytest.mark.parametrize(("trusted", "outcome"), [("own", Outcome.PASS), ("other", Outcome.UNKNOWN)])
def test_only_a_proxy_with_a_certificate_of_ca_file_is_asked(tmp_path: Path, trusted: str, outcome: Outcome) -> None:
    certificates = {name: make_certificate(tmp_path, name) for name in ("own", "other")}

    async def one_round() -> tuple[Canary, list[bytes]]:
        async with server(answer_with(status="401 Unauthorized"), certificates["own"]) as (url, requests):
            given = {**FILE, "url": url, "ca_file": certificates[trusted]}
            canary = Canary(Settings.model_validate(given, context={"folder": tmp_path}), environment={})
            await canary.round()
            return canary, requests

    canary, requests = asyncio.run(one_round())
    assert canary.results["no_token"].outcome is outcome
    assert bool(requests) is (outcome is Outcome.PASS)
