"""The pages tell the truth about the program, and lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, PAGES, README, ROOT, Page
from pydantic import BaseModel

from verifier import app, cli
from verifier.config import model as settings
from verifier.config.load import Environment
from verifier.decision import Decision
from verifier.reasons import Reason
from verifier.identity import IDENTITY_HEADERS
from verifier.keys import sets as keys
from verifier.observe import audit, metrics
from verifier.policy import policies as policy
from verifier.request import AuthRequest
from verifier.server import run as server
from verifier.tokens.profiles import PROFILES
from verifier.tools import lint

EXAMPLES = ROOT / "docs" / "examples"
OURS = [README, *(DOCS[name] for name in ("configuration", "threat-model", "onboarding", "ingress", "operations"))]
OURS += [DOCS[name] for name in ("secret-rotation", "moving")]


def ids(page: Page) -> str:
    return str(page)


def check(text: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (directory / "m2m.yaml").write_text(text)
    command = [sys.executable, "-m", "verifier", "check", "--config", str(directory / "m2m.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_somewhere(page: Page) -> None:
    missing = {target: page.missing(target) for target in page.links()}
    assert [why for why in missing.values() if why] == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = Page(ROOT / "docs" / "none.md")
    assert page.missing("nowhere.md") == "there is no docs/nowhere.md"
    assert page.missing("ingress.md#nothing") == "docs/ingress.md has no heading #nothing"
    assert page.missing("ingress.md#plain-nginx") == ""


@pytest.mark.parametrize("name", ["call-api.sh", "call_api.py"])
def test_onboarding_quotes_an_example_as_it_is(name: str) -> None:
    language = {".sh": "bash", ".py": "python"}[Path(name).suffix]
    assert (EXAMPLES / name).read_text() in DOCS["onboarding"].blocks(language)


def test_the_shell_example_is_clean() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    result = subprocess.run([shellcheck, EXAMPLES / "call-api.sh"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OK])
def test_onboarding_says_what_to_do_about_every_reason(reason: Reason) -> None:
    rows = [line for line in DOCS["onboarding"].path.read_text().splitlines() if line.startswith("|")]
    (row,) = [row for row in rows if f"`{reason}`" in row]
    assert row.rstrip("| ").rpartition("|")[2].strip()


@pytest.mark.parametrize("status", [401, 403, 503])
def test_the_readme_lists_the_reasons_of_a_status(status: int) -> None:
    (row,) = [line for line in README.path.read_text().splitlines() if line.startswith(f"| {status} |")]
    assert set(re.findall(r"`(\w+)`", row)) == {reason.value for reason in Reason if reason.status == status}


def metric_names() -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("", "_bucket", "_count", "_sum"), "gauge": ("",)}
    return {f"{family.name}{suffix}" for family in metrics.Metrics().collect() for suffix in suffixes[family.type]}


@pytest.mark.parametrize("page", OURS, ids=ids)
def test_every_metric_that_is_named_exists(page: Page) -> None:
    assert set(re.findall(r"\bm2m_verifier_\w+", page.path.read_text())) <= metric_names()


def test_operations_names_every_metric() -> None:
    named = set(re.findall(r"\bm2m_verifier_\w+", DOCS["operations"].path.read_text()))
    assert {name for name in metric_names() if not name.endswith(("_bucket", "_count", "_sum"))} <= named


def audit_fields() -> set[str]:
    request = AuthRequest("api", b"", None, "GET", b"https://api.example/db")
    line = audit.line(0.0, request, Decision(Reason.MISSING_TOKEN, None), 0.0)
    return set(json.loads(line))


def test_operations_names_every_audit_field() -> None:
    assert audit_fields() <= set(DOCS["operations"].spans())


@pytest.mark.parametrize("page", OURS, ids=ids)
def test_every_environment_variable_that_is_named_exists(page: Page) -> None:
    known = {name.upper() for name in Environment.model_fields}
    known |= set(re.findall(r"\bAPI_[A-Z_]+\b", (EXAMPLES / "call-api.sh").read_text()))
    named = set(re.findall(r"\b(?:M2M|COGNITO|OAUTH|API)_[A-Z_]+\b", page.path.read_text()))
    assert named <= known


def test_operations_names_every_option_of_serve_and_its_default() -> None:
    rows = DOCS["operations"].path.read_text()
    for name in ("host", "port", "metrics_port", "workers"):
        default = Environment.model_fields[f"m2m_{name}"].default
        assert f"| `--{name.replace('_', '-')}` | `M2M_{name.upper()}` | `{default}`" in rows


def commands(page: Page) -> list[str]:
    blocks = [line.strip() for block in [*page.blocks(""), *page.blocks("bash")] for line in block.splitlines()]
    found = [line for line in [*blocks, *page.spans()] if re.match(r"m2m-verifier [a-z]", line)]
    return [re.split(r" +[#<|]", line)[0] for line in found]


@pytest.mark.parametrize("page", OURS, ids=ids)
def test_every_command_line_is_one_that_the_program_takes(page: Page) -> None:
    for command in commands(page):
        _, name, *arguments = shlex.split(command)
        if name == "lint" and not (ROOT / "verifier" / "lint.py").exists():
            continue  # arrives later
        if not arguments:  # a command that is only named
            arguments = {"explain": ["--url", "U"], "lint": ["FILE"]}.get(name, [])
        cli._parser().parse_args([name, *arguments])


# Words of nginx, OAuth, Envoy, AWS and Python: not ours.
FOREIGN = {
    *("auth_request", "proxy_set_header", "add_header", "proxy_buffer_size"),
    *("client_secret", "token_url", "invalid_client", "invalid_scope", "error_description", "token_use", "device_key"),
    *("preferred_username", "failure_mode_allow", "ext_authz", "aws_secretsmanager_secret_version"),
    "would_deny",  # an audit line's event
}


@pytest.mark.parametrize("page", OURS, ids=ids)
def test_every_word_of_the_configuration_and_every_reason_that_is_named_exists(page: Page) -> None:
    models = [model for model in vars(settings).values() if isinstance(model, type) and issubclass(model, BaseModel)]
    known = FOREIGN | {reason.value for reason in Reason} | set(PROFILES) | metric_names()
    known |= {field for model in models for field in model.model_fields}
    known |= audit_fields()
    spans = [span for span in page.spans() if re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)+", span)]
    assert [span for span in spans if span not in known] == []


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("operations", f"({server.DRAIN} s at most)"),
        ("operations", f"the verifier for {server.KEEP_ALIVE} s"),
        ("ingress", f"the verifier keeps them for {server.KEEP_ALIVE} s"),
        ("ingress", f"up to {keys.MAX_WAIT:g} s for an issuer's keys"),
        ("operations", f"{app.READY_ANYWAY:g} s after the start"),
        ("operations", f"every {keys.REFRESH_DEFAULT / 60:g} minutes"),
        ("operations", f"between {keys.REFRESH_MIN / 60:g} minute and {keys.REFRESH_MAX / 3600:g} hour"),
        ("operations", f"at most every {keys.UNKNOWN_KID_COOLDOWN:g} s"),
        ("operations", f"for {keys.MAX_STALE / 3600:g} h after the last success"),
        ("operations", f"waits for it up to {keys.MAX_WAIT:g} s"),
        ("operations", f"{audit.MAX_WAITING:,} of them or {audit.MAX_WAITING_MIB} MiB"),
        ("configuration", f"more than {policy.MAX_QUERY:,} bytes"),
        ("operations", f"{metrics.MAX_CLIENTS:,} of them, then `other`"),
        ("operations", f"(`cache.size`, {settings.CacheSettings().size:,} by default)"),
        ("ingress", f"at {settings.Settings.model_fields['max_header_bytes'].default / 1024:g} KB"),
    ],
)
def test_a_page_tells_the_number_that_the_program_has(page: str, told: str) -> None:
    assert told in " ".join(DOCS[page].path.read_text().split())


def test_the_configuration_reference_is_accepted(tmp_path: Path) -> None:
    (example,) = DOCS["configuration"].blocks("yaml")
    result = check(example, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_readmes_configuration_is_accepted(tmp_path: Path) -> None:
    example = README.blocks("yaml")[0]
    result = check(example, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_policy_for_an_ingress_is_accepted(tmp_path: Path) -> None:
    example = DOCS["ingress"].blocks("yaml")[0]
    result = check(example, tmp_path, COGNITO_USER_POOL_ID="us-east-1_Example")
    assert (result.returncode, result.stderr) == (0, "")


def test_lint_finds_nothing_in_the_pages_ingress(tmp_path: Path) -> None:
    (tmp_path / "ingress.yaml").write_text(DOCS["ingress"].blocks("yaml")[1])
    known = lint.Known(frozenset({"orders"}))
    assert lint.lint_files([tmp_path / "ingress.yaml"], known) == []


def test_the_ingress_page_has_a_row_for_every_finding_of_lint() -> None:
    source = Path(lint.__file__).read_text()
    rules = set(re.findall(r"\.(?:trap|finding)\(\s*\"([a-z-]+)\"", source)) | {"unreadable"}
    rows = re.findall(r"^\| `([a-z-]+)` \|", DOCS["ingress"].path.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(rules)


def test_the_ingress_page_lists_every_identity_header_as_the_program_writes_it() -> None:
    assert ", ".join(IDENTITY_HEADERS) in DOCS["ingress"].blocks("yaml")[1]
