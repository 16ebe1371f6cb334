"""examples/cloudwatch-mcp: roles of AWS accounts for the clients of an MCP server."""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from examples.stack import ROOT

MAIN: Any = importlib.import_module("examples.cloudwatch-mcp.__main__")
CREDENTIALS: Any = importlib.import_module("examples.cloudwatch-mcp.credentials")
HERE = MAIN.HERE
MANIFESTS = list(yaml.safe_load_all((HERE / "kubernetes.yaml").read_text()))
ROLE, NOW = "arn:aws:iam::111111111111:role/monitoring", 1_800_000_000.0

EXAMPLE = "cloudwatch-mcp"
pytestmark = pytest.mark.timeout(600)

# --- the whole ---


@pytest.mark.parametrize("title", [*MAIN.TITLES, "exit status"])
def test_a_step_goes_as_the_readme_says(printed: dict[str, str], title: str) -> None:
    assert printed[title] == "ok"


# --- credentials ---


class Sts:
    """Gives a new key at each call, and remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def assume_role(self, **parameters: Any) -> dict[str, Any]:
        self.calls.append(parameters)
        keys = {name: f"{name} {len(self.calls)}" for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
        return {"Credentials": {**keys, "Expiration": datetime.fromtimestamp(NOW + CREDENTIALS.DURATION, UTC)}}

    assume_role_with_web_identity = assume_role


@pytest.fixture
def sts() -> Sts:
    return Sts()


def caller(client_id: str = "etl", role: str = ROLE, issuer: str = "id", token: str = "a.b.c") -> Any:
    return CREDENTIALS.Caller(issuer, client_id, role, token)


@pytest.mark.parametrize(
    ("other", "calls"),
    [
        (caller(), 1), (caller(token="d.e.f"), 1), (caller("other"), 2), (caller(role=ROLE + "2"), 2),
        (caller(issuer="other"), 2),
    ],
)  # fmt: skip
def test_credentials_are_kept_for_one_client_and_one_role(sts: Sts, other: Any, calls: int) -> None:
    kept = CREDENTIALS.RoleCredentials(CREDENTIALS.by_assume_role(sts), lambda: NOW)
    assert (kept.of(caller()) is kept.of(other)) == (calls == 1)
    assert len(sts.calls) == calls


def test_credentials_are_kept_until_shortly_before_they_expire(sts: Sts) -> None:
    now = [NOW]
    kept = CREDENTIALS.RoleCredentials(CREDENTIALS.by_assume_role(sts), lambda: now[0])
    last = CREDENTIALS.DURATION - CREDENTIALS.EARLY
    for seconds, calls in ((0, 1), (last - 1, 1), (last, 2)):
        now[0] = NOW + seconds
        kept.of(caller())
        assert len(sts.calls) == calls


def test_the_credentials_that_are_kept_are_bounded(sts: Sts) -> None:
    kept = CREDENTIALS.RoleCredentials(CREDENTIALS.by_assume_role(sts), lambda: NOW)
    for number in range(CREDENTIALS.MAX_KEPT + 10):
        kept.of(caller(f"client-{number}"))
    assert len(kept) == CREDENTIALS.MAX_KEPT


def test_the_servers_identity_assumes_the_role_in_the_name_of_the_client(sts: Sts) -> None:
    CREDENTIALS.by_assume_role(sts)(caller("etl"))
    assert sts.calls == [{
        "RoleArn": ROLE, "RoleSessionName": "etl", "DurationSeconds": 900,
        "Tags": [{"Key": "client_id", "Value": "etl"}, {"Key": "issuer", "Value": "id"}],
    }]  # fmt: skip


def test_the_callers_own_token_assumes_the_role(sts: Sts) -> None:
    CREDENTIALS.by_web_identity(sts)(caller("etl"))
    [call] = sts.calls
    assert (call["RoleArn"], call["RoleSessionName"], call["WebIdentityToken"]) == (ROLE, "etl", "a.b.c")


@pytest.mark.parametrize(
    ("client_id", "name"),
    [
        ("etl", "etl"), ("a+b=c,d.e@f-g_h", "a+b=c,d.e@f-g_h"), ("x" * 64, "x" * 64),
        ("system:serviceaccount:batch:etl", "system-serviceaccount-batch-etl-HASH"), ("x" * 65, "x" * 51 + "-HASH"),
        ("e", "e-HASH"),
    ],
)  # fmt: skip
def test_a_session_name_is_the_client_id_where_sts_allows_it_and_else_ends_in_a_hash(client_id: str, name: str) -> None:
    digest = hashlib.sha256(client_id.encode()).hexdigest()[:12]
    assert CREDENTIALS.session_name(client_id) == name.replace("HASH", digest)


@pytest.mark.parametrize(("text", "value"), [("a b:c/d", "a b:c/d"), ('a"b*', "a-b-"), ("x" * 300, "x" * 256)])
def test_a_tag_holds_what_sts_allows(text: str, value: str) -> None:
    assert CREDENTIALS.tag_value(text) == value


GIVEN = {"x-m2m-issuer": "id", "x-m2m-client-id": "etl", "x-m2m-role": ROLE, "authorization": "Bearer a.b.c"}


def test_a_caller_is_who_the_verifier_says() -> None:
    assert CREDENTIALS.Caller.of(GIVEN) == caller()
    assert CREDENTIALS.Caller.of(GIVEN).token == "a.b.c"


@pytest.mark.parametrize("missing", [*list(GIVEN)[:3], None])
def test_without_a_word_of_the_verifier_there_is_no_caller(missing: str | None) -> None:
    given = None if missing is None else {**GIVEN, missing: ""}
    with pytest.raises(PermissionError):
        CREDENTIALS.Caller.of(given)


def test_no_secret_is_shown(sts: Sts) -> None:
    own = CREDENTIALS.by_assume_role(sts)(caller(token="secret"))
    assert "secret" not in repr(caller(token="secret"))
    assert all(word not in repr(own) for word in ("SecretAccessKey", "SessionToken"))


# --- manifests ---


def test_nobody_but_the_ingress_controller_may_call_the_server() -> None:
    [policy] = [manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "NetworkPolicy"]
    [rule] = policy["ingress"]
    [source] = rule["from"]
    assert policy["podSelector"] == {}
    assert "Ingress" in policy["policyTypes"]
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "ingress-nginx"}
    assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "controller"


def test_no_manifest_holds_a_key() -> None:
    text = (HERE / "kubernetes.yaml").read_text()
    assert not any(word in text for word in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "kind: Secret"))


# --- LibreChat ---


def librechat(block: Any) -> subprocess.CompletedProcess[str]:
    """What LibreChat's own schema says."""
    folder, node = ROOT / "build" / "examples" / "librechat" / "node_modules", shutil.which("node")
    node = node or str(ROOT / ".venv" / "bin" / "node")
    command = [node, str(HERE / "librechat" / "check.cjs"), str(folder / "librechat-data-provider")]
    given = json.dumps({"version": "1.2.8", **block})
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, env={"PATH": os.defpath})


BLOCK = yaml.safe_load((HERE / "librechat" / "librechat.yaml").read_text())


def test_librechat_accepts_the_block_and_drops_none_of_it() -> None:
    """It ignores names that it does not know: whatever comes back was understood."""
    done = librechat(BLOCK)
    assert done.returncode == 0, done.stdout + done.stderr
    understood = json.loads(done.stdout)
    assert understood["mcpServers"] == BLOCK["mcpServers"]
    assert understood["mcpSettings"].items() >= BLOCK["mcpSettings"].items()


def test_librechat_refuses_a_block_with_a_wrong_type() -> None:
    done = librechat({"mcpServers": {"cloudwatch": {**BLOCK["mcpServers"]["cloudwatch"], "timeout": "long"}}})
    assert done.returncode == 1, done.stderr
