"""terraform/, read without its provider: nothing is planned or applied."""

import re
from pathlib import Path
from typing import Any

import hcl2
import yaml

from tests.programs import ROOT, find, run

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
                nested = kind == "resource"
                found |= {f"{label}.{name}": inner for name, inner in body.items()} if nested else {label: body}
    return found


def formatted(path: Path) -> bool:
    """Whether `terraform fmt`, or the formatter that it is built on, leaves the file unchanged."""
    program = find("terraform", "tofu", "hclfmt")
    arguments = [] if Path(program).name == "hclfmt" else ["fmt", "-"]
    return run(program, *arguments, input=path.read_text()).stdout == path.read_text()


def test_the_files_are_formatted_and_the_formatter_notices_if_not(tmp_path: Path) -> None:
    assert [path.name for path in FILES if not formatted(path)] == []
    changed = tmp_path / "main.tf"
    changed.write_text((FOLDER / "main.tf").read_text().replace("name                = var.name", "name = var.name"))
    assert not formatted(changed)


def test_every_name_that_is_used_is_declared() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    used = set(re.findall(r"\b(var\.\w+|local\.\w+|(?<!data\.)aws_\w+\.\w+)", text))
    declared = {f"var.{name}" for name in blocks("variable")} | {f"local.{name}" for name in blocks("locals")}

    assert used == declared | (blocks("resource").keys() & used)


def test_every_variable_and_output_is_described() -> None:
    bodies = blocks("variable") | blocks("output")
    assert [name for name, body in bodies.items() if not body["description"]] == []


def test_a_client_may_fetch_tokens_for_itself_and_nothing_else_and_no_person_can_sign_up_or_in() -> None:
    resources = blocks("resource")
    expected = {
        "allowed_oauth_flows_user_pool_client": True,
        "allowed_oauth_flows": ["client_credentials"],
        "generate_secret": True,
        "explicit_auth_flows": ["ALLOW_CUSTOM_AUTH"],  # which no trigger answers: no person signs in, no refresh token
        "access_token_validity": 1,
        "token_validity_units": [{"access_token": "hours"}],
        "enable_token_revocation": True,
        "for_each": "var.clients",
    }
    assert resources["aws_cognito_user_pool_client.machine"].items() >= expected.items()
    pool = resources["aws_cognito_user_pool.this"]
    assert pool["admin_create_user_config"] == [{"allow_admin_create_user_only": True}]
    assert pool["deletion_protection"] == "ACTIVE"
    assert "lambda_config" not in pool


def test_scopes_and_clients_come_from_the_maps_and_only_etl_may_write() -> None:
    [scope] = blocks("resource")["aws_cognito_resource_server.api"]["dynamic"]
    variables = blocks("variable")

    assert scope["scope"]["for_each"] == "var.scopes"
    assert variables["scopes"]["default"].keys() == {"read", "write", "admin"}
    assert variables["clients"]["default"] == {
        "etl": ["read", "write"], "reporting": ["read"], "monitoring": ["read"], "agent": ["read"],
    }  # fmt: skip


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
    rules = policy["policies"]["api"]["rules"]
    needed = {scope for rule in rules for scope in rule.get("scope", []) + rule.get("any_scope", [])}

    assert policy["scope_prefix"] == blocks("variable")["resource_server"]["default"] + "/"
    assert needed <= blocks("variable")["scopes"]["default"].keys()
