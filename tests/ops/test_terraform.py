"""terraform/, as far as it can be read without its provider: no plan is made and nothing is applied here."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "terraform"
FILES = sorted(FOLDER.glob("*.tf"))


def plain(node: Any) -> Any:
    """Strings without the quotes and ${} that the parser leaves on."""
    if isinstance(node, dict):
        return {plain(key): plain(value) for key, value in node.items() if key not in ("__is_block__", "__comments__")}
    if isinstance(node, list):
        return [plain(child) for child in node]
    if isinstance(node, str):
        return re.sub(r'^\$\{(.*)\}$|^"(.*)"$', lambda found: found[1] or found[2] or "", node, flags=re.DOTALL)
    return node


def blocks(kind: str) -> dict[str, Any]:
    """All blocks of a kind, by their last label."""
    found: dict[str, Any] = {}
    for path in FILES:
        for block in plain(hcl2.loads(path.read_text())).get(kind, []):
            for label, body in block.items():
                found |= (
                    {f"{label}.{name}": inner for name, inner in body.items()} if kind == "resource" else {label: body}
                )
    return found


@pytest.fixture
def client() -> dict[str, Any]:
    found: dict[str, Any] = blocks("resource")["aws_cognito_user_pool_client.machine"]
    return found


def formatted(tool: Callable[..., str], path: Path) -> bool:
    """Whether `terraform fmt` leaves it as it is; where there is none, the formatter that it is built on."""
    program = tool("terraform", "tofu", "hclfmt")
    arguments = [] if Path(program).name == "hclfmt" else ["fmt", "-"]
    done = subprocess.run([program, *arguments], input=path.read_bytes(), capture_output=True, timeout=60, check=True)
    return done.stdout == path.read_bytes()


def test_it_is_formatted(tool: Callable[..., str]) -> None:
    assert [path.name for path in FILES if not formatted(tool, path)] == []


def test_the_formatter_would_say_so(tool: Callable[..., str], tmp_path: Path) -> None:
    crooked = shutil.copy(FOLDER / "main.tf", tmp_path / "crooked.tf")
    crooked.write_text(crooked.read_text().replace("name                = var.name", "name = var.name"))

    assert not formatted(tool, crooked)


def test_every_name_that_is_used_is_declared() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    used = set(re.findall(r"\b(var\.\w+|local\.\w+|(?<!data\.)aws_\w+\.\w+)", text))
    declared = {f"var.{name}" for name in blocks("variable")} | {f"local.{name}" for name in blocks("locals")}

    assert used == declared | (blocks("resource").keys() & used)


def test_every_variable_and_output_is_described() -> None:
    assert [
        name for kind in ("variable", "output") for name, body in blocks(kind).items() if not body["description"]
    ] == []


def test_a_client_may_fetch_tokens_for_itself_and_nothing_else(client: dict[str, Any]) -> None:
    assert client["allowed_oauth_flows_user_pool_client"] is True
    assert client["allowed_oauth_flows"] == ["client_credentials"]
    assert client["generate_secret"] is True


def test_no_flow_signs_a_person_in_or_gives_a_refresh_token(client: dict[str, Any]) -> None:
    assert client["explicit_auth_flows"] == ["ALLOW_CUSTOM_AUTH"]
    assert "lambda_config" not in blocks("resource")["aws_cognito_user_pool.this"]


def test_nobody_signs_up() -> None:
    [users] = blocks("resource")["aws_cognito_user_pool.this"]["admin_create_user_config"]

    assert users == {"allow_admin_create_user_only": True}


def test_a_token_lives_an_hour_and_can_be_revoked(client: dict[str, Any]) -> None:
    assert (client["access_token_validity"], client["token_validity_units"]) == (1, [{"access_token": "hours"}])
    assert client["enable_token_revocation"] is True


def test_the_scopes_are_read_write_admin() -> None:
    assert blocks("variable")["scopes"]["default"].keys() == {"read", "write", "admin"}


def test_only_the_etl_may_write() -> None:
    assert blocks("variable")["clients"]["default"] == {
        "etl": ["read", "write"],
        "reporting": ["read"],
        "monitoring": ["read"],
        "agent": ["read"],
    }


def test_every_client_and_each_scope_is_made_from_the_maps(client: dict[str, Any]) -> None:
    [scope] = blocks("resource")["aws_cognito_resource_server.api"]["dynamic"]

    assert scope["scope"]["for_each"] == "var.scopes"
    assert client["for_each"] == "var.clients"


def test_ids_are_plain_and_secrets_are_not() -> None:
    secret = {name for name, body in blocks("output").items() if "client_secret" in str(body["value"])}
    sensitive = {name for name, body in blocks("output").items() if body.get("sensitive")}

    assert secret == sensitive == {"client_secrets"}
    assert {"user_pool_id", "client_ids", "issuer", "token_url"} <= blocks("output").keys()


def test_every_clients_secret_is_kept_in_secrets_manager() -> None:
    version = blocks("resource")["aws_secretsmanager_secret_version.machine"]

    assert version["for_each"] == "var.clients"
    assert version["secret_id"] == "aws_secretsmanager_secret.machine[each.key].id"
    assert "client_secret = aws_cognito_user_pool_client.machine[each.key].client_secret" in re.sub(
        r" +", " ", str(version["secret_string"])
    )


def test_the_homelabs_policy_reads_the_scopes_that_are_granted() -> None:
    policy = yaml.safe_load((ROOT / "k8s" / "overlays" / "homelab" / "policy.yaml").read_text())
    needed = {
        scope
        for rule in policy["policies"]["api"]["rules"]
        for scope in rule.get("scope", []) + rule.get("any_scope", [])
    }

    assert policy["scope_prefix"] == blocks("variable")["resource_server"]["default"] + "/"
    assert needed <= blocks("variable")["scopes"]["default"].keys()
