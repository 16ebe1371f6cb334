"""The API server's own service-account tokens, checked with its keys over TLS as a pod in the cluster would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.server import AUDIENCE, ApiServer
from tests.e2e.stage import Serve, eventually

ACCOUNT = "system:serviceaccount:agents:nightly-report"


@pytest.fixture(scope="module")
def accounts(api_server: ApiServer) -> ApiServer:
    api_server.namespace("agents")
    for name in ("nightly-report", "m2m-verifier"):
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "agents"}}
        api_server.apply(account)
    return api_server


@pytest.fixture(scope="module")
def issuer(accounts: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mounted")
    shutil.copy(accounts.ca, folder / "ca.crt")
    # What a kubelet mounts: a token of the verifier's own account, for the API server itself.
    (folder / "token").write_text(accounts.token("agents", "m2m-verifier", audience=accounts.url))
    return {
        "name": "cluster", "profile": "kubernetes", "issuer": accounts.url, "audience": [AUDIENCE],
        "ca_file": str(folder / "ca.crt"), "bearer_token_file": str(folder / "token"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def verifier(issuer: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    headers = {"X-Namespace": ["kubernetes.io", "namespace"]}
    configuration = {"issuers": [issuer], "policies": {"api": {"clients": [ACCOUNT]}}, "headers": headers}
    with Serve(configuration, tmp_path_factory.mktemp("verifier")) as serve:
        yield serve


def test_a_service_accounts_token_passes_with_its_name_and_namespace(verifier: Serve, accounts: ApiServer) -> None:
    answer = verifier.ask(accounts.token("agents", "nightly-report"), "/verify/api")

    assert answer.status_code == 200, verifier.log
    assert (answer.headers["X-M2M-Client-ID"], answer.headers["X-Namespace"]) == (ACCOUNT, "agents")


@pytest.mark.parametrize(
    ("account", "audience", "status", "reason"),
    [
        ("m2m-verifier", AUDIENCE, 403, "client_not_allowed"),
        ("nightly-report", "another-api", 401, "wrong_audience"),
        ("nightly-report", "", 401, "wrong_audience"),
    ],
)
def test_another_account_and_a_token_for_another_audience_do_not_pass(
    verifier: Serve, accounts: ApiServer, account: str, audience: str, status: int, reason: str
) -> None:
    answer = verifier.ask(accounts.token("agents", account, audience or accounts.url), "/verify/api")

    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("left_out", "logged"), [("bearer_token_file", "status 403"), ("ca_file", "CERTIFICATE_VERIFY_FAILED")]
)
def test_without_the_token_or_the_authority_there_are_no_keys(
    issuer: dict[str, Any], accounts: ApiServer, tmp_path: Path, left_out: str, logged: str
) -> None:
    without = {name: value for name, value in issuer.items() if name != left_out}
    with Serve({"issuers": [without]}, tmp_path, ready=False) as serve:
        answer = serve.ask(accounts.token("agents", "nightly-report"))
        eventually(lambda: logged in serve.log, f"the log says {logged}")

    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (503, "keys_unavailable")
