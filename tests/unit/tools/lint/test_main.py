"""The command ``m2m-verifier lint``."""

from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import VERIFY, N, ingress, unguarded
from verifier import cli


@pytest.mark.parametrize(
    ("limit", "code", "found"), [("20", 0, "no finding(s)"), (None, 1, "1 finding(s)")], ids=["none", "one"]
)
def test_the_exit_code_says_whether_there_is_a_finding_and_the_last_line_counts_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str | None, code: int, found: str
) -> None:
    path = tmp_path / "ingress.yaml"
    path.write_text(yaml.safe_dump_all([ingress(limit_rps=limit), unguarded(host="www.example.com", service="web")]))

    assert cli.main(["lint", str(path)]) == code
    assert capsys.readouterr().out.splitlines()[-1] == f"1 file(s), 2 route(s), 1 guard(s): {found}"


CONFIGURATION = """
issuers: [{name: homelab, cognito: {user_pool_id: us-east-1_Example}}]
policies:
  api: {scope: [read], resource: {url: "https://api.example.com", authorization_servers: ["https://id.example.com"]}}
headers: {X-Tenant-ID: tenant}
"""


def test_policies_resources_and_headers_come_from_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "verifier.yaml").write_text(CONFIGURATION)
    (tmp_path / "api.yaml").write_text(yaml.safe_dump(ingress()))
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(ingress(host="web.example.com", auth_url=VERIFY[:-3] + "web")))

    assert cli.main(["lint", f"--config={tmp_path}/verifier.yaml", f"{tmp_path}/api.yaml", f"{tmp_path}/web.yaml"]) == 1

    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert [line.removeprefix(f"{tmp_path}/") for line in found] == [
        f"api.yaml:5: Ingress shop/api: {N}auth-response-headers [forgeable-header]",
        f"api.yaml:7: Ingress shop/api: {N}auth-url [lost-challenge]",
        f"api.yaml:7: Ingress shop/api: {N}auth-url [metadata-behind-auth]",
        f"web.yaml:5: Ingress shop/api: {N}auth-response-headers [forgeable-header]",
        f"web.yaml:7: Ingress shop/api: {N}auth-url [unknown-policy]",
    ]
