"""The API server's own service-account tokens, checked with its keys over TLS as a pod in the cluster would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

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
def verifier(accounts: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("verifier")
    shutil.copy(accounts.ca, folder / "ca.crt")
    # What a kubelet mounts: a token of the verifier's own account, for the API server itself.
    (folder / "token").write_text(accounts.token("agents", "m2m-verifier", audience=accounts.url))
    issuer = {
        "name": "cluster", "profile": "kubernetes", "issuer": accounts.url, "audience": [AUDIENCE],
        "ca_file": str(folder / "ca.crt"), "bearer_token_file": str(folder / "token"),
    }  # fmt: skip
    headers = {"X-Namespace": ["kubernetes.io", "namespace"]}
    policy = {"api": {"clients": [ACCOUNT]}}
    with Serve({"issuers": [issuer], "policies": policy, "headers": headers}, folder) as serve:
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


@pytest.mark.parametrize(("name", "left_out"), [("token", "bearer_token_file"), ("ca", "ca_file")])
def test_without_the_token_or_the_authority_there_are_no_keys(
    verifier: Serve, accounts: ApiServer, tmp_path: Path, name: str, left_out: str
) -> None:
    issuer = {
        "name": "cluster", "profile": "kubernetes", "issuer": accounts.url, "audience": [AUDIENCE],
        "ca_file": str(verifier.config.parent.parent / "ca.crt"),
        "bearer_token_file": str(verifier.config.parent.parent / "token"),
    }  # fmt: skip
    del issuer[left_out]
    with Serve({"issuers": [issuer]}, tmp_path, ready=False) as without:
        answer = without.ask(accounts.token("agents", "nightly-report"))
        eventually(lambda: "cluster" in without.log, f"the log says why, without {name}")

    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (503, "keys_unavailable")
