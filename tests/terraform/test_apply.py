"""terraform/ is applied to a double of AWS (moto) and read back: `make terraform-test`.

Not shown: that AWS behaves as the double does, and that Cognito gives out tokens.
"""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import boto3
import pytest
import yaml

from tests.programs import CACHE, ROOT, m2m_verifier, run, running
from verifier.demo.serving import free_port

SERVER = "https://api.example.com"
CLIENTS = {"etl": ["read", "write"], "reporting": ["read"]}

pytestmark = pytest.mark.timeout(1200)  # seconds: the first test waits for the apply


def missing(what: str) -> None:
    """Fail, or where `TERRAFORM=optional` skip, because nothing was applied."""
    (pytest.skip if os.environ.get("TERRAFORM") == "optional" else pytest.fail)(f"terraform/ was not applied: {what}")


def plugins() -> list[str]:
    """The option that names a folder with the provider, where the machine has one; else the registry is asked."""
    named = os.environ.get("TERRAFORM_PLUGINS") or next(map(str, Path("/opt").glob("*/registry.terraform.io")), "")
    return [f"-plugin-dir={named.removesuffix('/registry.terraform.io')}"] if named else []


@dataclass
class Applied:
    """A copy of terraform/ in `folder`, applied. `environment` has the double's address and credentials."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        return run("terraform", *arguments, cwd=self.folder, env=self.environment, check=check)

    def client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="id", aws_secret_access_key="key",
        )  # fmt: skip

    def outputs(self) -> dict[str, Any]:
        return {name: output["value"] for name, output in json.loads(self.run("output", "-json").stdout).items()}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    if not shutil.which("terraform"):
        missing("there is no terraform")
    port, folder = free_port(), tmp_path_factory.mktemp("terraform")
    for path in (ROOT / "terraform").glob("*.tf"):
        shutil.copy(path, folder)
    (folder / "terraform.tfvars.json").write_text(
        json.dumps({"domain_prefix": "example-m2m", "resource_server": SERVER, "clients": CLIENTS})
    )
    aws = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    made = Applied(folder, os.environ | aws | {"AWS_REGION": "us-east-1", "TF_IN_AUTOMATION": "1", "NO_COLOR": "1"})
    init = made.run("init", "-backend=false", "-input=false", "-no-color", *plugins(), check=False)
    if "Failed to query available provider packages" in init.stderr:
        missing("the AWS provider cannot be had")
    assert init.returncode == 0, init.stderr
    command = [str(CACHE / "moto" / "bin" / "moto_server"), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, folder / "moto.log", f"{aws['AWS_ENDPOINT_URL']}/moto-api/"):
        made.run("validate")
        made.run("plan", "-input=false", "-out=plan")
        made.run("apply", "-input=false", "plan")
        yield made


def test_a_second_plan_changes_nothing(applied: Applied) -> None:
    assert "No changes" in applied.run("plan", "-input=false", "-detailed-exitcode").stdout  # 2: there are changes


def test_the_pool_lets_nobody_sign_up_and_is_protected(applied: Applied) -> None:
    pool = applied.client("cognito-idp").describe_user_pool(UserPoolId=applied.outputs()["user_pool_id"])["UserPool"]
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"]
    assert pool["DeletionProtection"] == "ACTIVE"


def test_the_resource_server_has_the_scopes(applied: Applied) -> None:
    server = applied.client("cognito-idp").describe_resource_server(
        UserPoolId=applied.outputs()["user_pool_id"], Identifier=SERVER
    )["ResourceServer"]
    assert {scope["ScopeName"] for scope in server["Scopes"]} == {"read", "write", "admin"}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_has_its_scopes_and_may_only_ask_for_tokens_of_its_own(applied: Applied, name: str) -> None:
    outputs = applied.outputs()
    client = applied.client("cognito-idp").describe_user_pool_client(
        UserPoolId=outputs["user_pool_id"], ClientId=outputs["client_ids"][name]
    )["UserPoolClient"]
    assert client["AllowedOAuthFlows"] == ["client_credentials"]
    assert client["ExplicitAuthFlows"] == ["ALLOW_CUSTOM_AUTH"]
    assert sorted(client["AllowedOAuthScopes"]) == [f"{SERVER}/{scope}" for scope in CLIENTS[name]]
    assert client["ClientSecret"] == outputs["client_secrets"][name]


@pytest.mark.parametrize("name", CLIENTS)
def test_an_example_reads_a_clients_credentials_from_its_secret(applied: Applied, name: str) -> None:
    outputs = applied.outputs()
    code = "import json, call_api; print(json.dumps(call_api.credentials()))"
    environment = applied.environment | {
        "API_SECRET_ID": outputs["secret_arns"][name], "PYTHONPATH": str(ROOT / "docs" / "examples"),
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    assert json.loads(run(sys.executable, "-c", code, env=environment).stdout) == {
        "client_id": outputs["client_ids"][name], "client_secret": outputs["client_secrets"][name],
        "token_url": "https://example-m2m.auth.us-east-1.amazoncognito.com/oauth2/token",
        "scope": " ".join(f"{SERVER}/{scope}" for scope in CLIENTS[name]),
    }  # fmt: skip


def test_the_readmes_command_writes_a_configuration_that_check_accepts(applied: Applied) -> None:
    [line] = re.findall(r"^ +(terraform output .*)$", (ROOT / "terraform" / "README.md").read_text(), re.MULTILINE)
    run("sh", "-c", line, cwd=applied.folder, env=applied.environment)
    given = {name: value for name, value in applied.environment.items() if not name.startswith("COGNITO_")}
    given["PYTHONPATH"] = str(ROOT)
    status, _, errors = m2m_verifier("check", "--config", shlex.split(line)[-1], cwd=applied.folder, env=given)
    assert (status, errors) == (0, "")
    [issuer] = yaml.safe_load((applied.folder / "m2m.yaml").read_text())["issuers"]
    assert sorted(issuer["clients"]) == sorted(applied.outputs()["client_ids"].values())
