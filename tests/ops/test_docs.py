"""The pages describe the program as it is, and their links work."""

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from grafana.live import binary
from tests.ops import pages, promql
from tests.ops.pages import DOCS, PAGES, README, Page
from tests.programs import BIN, ROOT, m2m_verifier, run
from tests.unit.support import make_principal, make_token, observation
from verifier import app, cli
from verifier.config import model
from verifier.config.environment import Environment
from verifier.decision import Decision
from verifier.keys import sets
from verifier.observe import audit, metrics
from verifier.policy import policies
from verifier.reasons import Reason
from verifier.request import AuthRequest
from verifier.server import connection
from verifier.server.run import DRAIN
from verifier.tokens.profiles import PROFILES
from verifier.tools import canary, guard, lint
from verifier.tools.canary.settings import Grant

EXAMPLES = ROOT / "docs" / "examples"
ALERTS = ROOT / "grafana" / "alerts"
CANARY = ROOT / "tests" / "ops" / "canary" / "canary.yaml"
NAMES = "configuration issuers agents threat-model onboarding ingress operations secret-rotation moving monitoring"
CHECKED = [README, *(DOCS[name] for name in [*NAMES.split(), "report", "install", "canary"])]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Page) -> None:
    missing = {target: page.missing(target) for target in page.links()}
    assert [why for why in missing.values() if why] == []


def test_the_readme_names_every_page_but_those_of_single_examples() -> None:
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in README.links()}
    pages_of_examples = {page.path for page in pages.EXAMPLES}
    assert {page.path for page in PAGES} - {README.path} - pages_of_examples <= linked


@pytest.mark.parametrize("name", ["call-api.sh", "call_api.py"])
def test_onboarding_quotes_an_example_as_it_is(name: str) -> None:
    language = {".sh": "bash", ".py": "python"}[Path(name).suffix]
    assert (EXAMPLES / name).read_text() in DOCS["onboarding"].blocks(language)


def test_the_shell_example_is_clean() -> None:
    run(BIN / "shellcheck", EXAMPLES / "call-api.sh")


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
    return {
        f"{family.name}{suffix}" for family in metrics.Metrics().registry.collect() for suffix in suffixes[family.type]
    }


def test_operations_names_every_metric() -> None:
    named = set(re.findall(r"\bm2m_verifier_\w+", DOCS["operations"].path.read_text()))
    own = {name for name in metric_names() if name.startswith("m2m_verifier_")}
    assert {name for name in own if not name.endswith(("_bucket", "_count", "_sum"))} <= named


def audit_fields() -> set[str]:
    request = AuthRequest("api", b"", None, "GET", b"https://api.example/db")
    return set(json.loads(audit.line(observation(0.0, request, Decision(Reason.MISSING_TOKEN), 0.0))))


def test_operations_names_every_audit_field() -> None:
    assert audit_fields() <= set(DOCS["operations"].spans())


def test_the_derived_field_of_the_monitoring_page_finds_a_trace_id_and_no_empty_one() -> None:
    (source,) = yaml.safe_load(DOCS["monitoring"].blocks("yaml")[-1])["datasources"]
    (derived,) = source["jsonData"]["derivedFields"]
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    request = AuthRequest("api", b"", None, "GET", b"", traceparent=f"00-{trace}-00f067aa0ba902b7-01".encode())
    lines = [
        audit.line(observation(0.0, asked, Decision(Reason.MISSING_TOKEN), 0.0)).decode()
        for asked in (request, replace(request, traceparent=b""))
    ]
    assert [re.findall(derived["matcherRegex"], line) for line in lines] == [[trace], []]


def test_the_link_to_loki_on_the_monitoring_page_has_a_query_of_that_page() -> None:
    (link,) = DOCS["monitoring"].blocks("text")
    (query,) = json.loads(link.partition("&panes=")[2])["a"]["queries"]
    assert query["expr"] in DOCS["monitoring"].blocks("logql")[1]


def test_the_json_on_the_report_page_has_the_members_that_report_writes(tmp_path: Path) -> None:
    config = tmp_path / "m2m.yaml"
    config.write_text("issuers: [{name: homelab, issuer: x, jwks_url: 'https://x.example/', audience: x}]")
    request = AuthRequest("gone", b"", None, "GET", b"https://api.example/")
    token = make_token(make_principal(issuer="homelab"))
    (tmp_path / "audit").write_bytes(audit.line(observation(0.0, request, Decision(Reason.OK, "gone", token=token), 0)))
    _, printed, _ = m2m_verifier("report", tmp_path / "audit", f"--config={config}", "--format=json")
    (written,) = DOCS["report"].blocks("json")

    assert members(json.loads(written)) == members(json.loads(printed))


def members(value: Any) -> Any:
    """The names in a JSON value, without what they hold; a list stands for its first item."""
    if isinstance(value, list):
        return [members(one) for one in value[:1]]
    names = {name: members(one) for name, one in value.items()} if isinstance(value, dict) else {}
    return names | {name: None for name in ("refusals", "would_deny") if name in names}


def test_operations_names_every_option_of_serve_and_its_default() -> None:
    rows = DOCS["operations"].path.read_text()
    for name in ("host", "port", "metrics_port", "workers"):
        default = Environment.model_fields[f"m2m_{name}"].default
        assert f"| `--{name.replace('_', '-')}` | `M2M_{name.upper()}` | `{default}`" in rows


@cache
def help_of(command: str) -> str:
    """What the program says of a command."""
    status, printed, errors = m2m_verifier(command, "--help", env={**os.environ, "COLUMNS": "999"})
    assert status == 0, errors
    return printed


def commands(page: Page) -> list[list[str]]:
    """Words of each command of the program, the ones that `kubectl exec` or a pipe starts included."""
    blocks = [line.strip() for block in [*page.blocks(""), *page.blocks("bash")] for line in block.splitlines()]
    found = [re.search(r"(?:^|-- |\| )m2m-verifier ([a-z].*)", line) for line in [*blocks, *page.spans()]]
    return [shlex.split(re.split(r" +[#<|\\]", line[1])[0]) for line in found if line]


def test_the_runbook_starts_every_command_where_it_can_run() -> None:
    lines = [line.strip() for line in [*DOCS["runbook"].blocks(""), *DOCS["runbook"].spans()]]
    on_a_file = [line for line in lines if line.startswith("m2m-verifier ")]
    assert [line for line in on_a_file if "FILE" not in line] == []
    assert [line for line in lines if "-- m2m-verifier explain" in line and "exec -i" in line and "< token" in line]


@pytest.mark.parametrize("page", [*CHECKED, DOCS["runbook"], DOCS["proxies"], *pages.EXAMPLES], ids=str)
def test_every_command_line_has_a_command_and_options_that_the_program_has(page: Page) -> None:
    unknown = {
        word for name, *words in commands(page) for word in words
        if word.startswith("--") and word.partition("=")[0] not in re.findall(r"--[a-z-]+", help_of(name))
    }  # fmt: skip
    assert unknown == set()


# Words of nginx, OAuth, Envoy, AWS, Python and Prometheus; would_deny is an audit line's event.
FOREIGN = """
auth_request proxy_set_header add_header proxy_buffer_size client_secret token_url invalid_client invalid_scope
error_description token_use device_key id_token session_state auth_time may_act preferred_username failure_mode_allow
ext_authz try_files error_page server_name aws_secretsmanager_secret_version would_deny runbook_url rule_files
ngx_otel_module id_tokens project_path
"""


@pytest.mark.parametrize("page", CHECKED, ids=str)
def test_every_metric_variable_and_word_of_the_configuration_that_is_named_exists(page: Page) -> None:
    text = page.path.read_text()
    assert set(re.findall(r"\bm2m_verifier_\w+", text)) <= metric_names() | promql.CANARY.keys()

    variables = {name.upper() for name in Environment.model_fields}
    variables |= set(re.findall(r"\bAPI_[A-Z_]+\b", (EXAMPLES / "call-api.sh").read_text()))
    assert set(re.findall(r"\b(?:M2M|COGNITO|OAUTH|API)_[A-Z_]+\b", text)) <= variables

    kinds = [kind for kind in vars(model).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]
    known = {*FOREIGN.split(), *(reason.value for reason in Reason), *PROFILES, *metric_names(), *audit_fields()}
    known |= {*canary.CHECKS, *Grant.model_fields, *canary.Settings.model_fields, *promql.CANARY}
    known |= {field for kind in kinds for field in kind.model_fields}
    spans = [span for span in page.spans() if re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)+", span)]
    assert [span for span in spans if span not in known] == []


@pytest.mark.parametrize(
    ("page", "words", "number"),
    [
        ("operations", "at most", f"({DRAIN} s"),
        ("operations", "idle connections", f"{connection.IDLE_TIME:g} s"),
        ("operations", "after the start", f"{app.READY_ANYWAY:g} s"),
        ("operations", "Cache-Control", f"every {sets.REFRESH_DEFAULT / 60:g} minutes"),
        ("operations", "Cache-Control", f"{sets.REFRESH_MIN / 60:g} minute"),
        ("operations", "Cache-Control", f"{sets.REFRESH_MAX / 3600:g} hour"),
        ("operations", "key id", f"every {sets.COOLDOWN:g} s"),
        ("operations", "last success", f"{sets.MAX_STALE / 3600:g} h"),
        ("operations", "new key", f"up to {sets.MAX_WAIT:g} s"),
        ("operations", "slow reader", f"{audit.MAX_PENDING:,} of them or {audit.MAX_PENDING_BYTES // 2**20} MiB"),
        ("operations", "`other`", f"{metrics.MAX_CLIENTS:,}"),
        ("operations", "`cache.size`", f"{model.CacheSettings().size:,}"),
        ("configuration", "`issuer=NAME`", f"{policies.MAX_QUERY:,} bytes"),
        ("ingress", "keepalive_timeout", f"{connection.IDLE_TIME:g} s"),
        ("ingress", "headers_too_large", f"{model.Settings.model_fields['max_header_bytes'].default / 1024:g} KB"),
        ("ingress", "proxy_read_timeout", f"{sets.MAX_WAIT:g} s"),
    ],
)
def test_a_paragraph_of_the_page_has_the_number_that_the_program_has(page: str, words: str, number: str) -> None:
    paragraphs = re.split(r"\n(?=[\n|-])", DOCS[page].path.read_text())
    assert [one for one in paragraphs if words in one and number in " ".join(one.split())]


@pytest.mark.parametrize(
    "text",
    [
        *DOCS["configuration"].blocks("yaml"),
        *(text for text in DOCS["issuers"].blocks("yaml") if "issuers:" in text),
        README.blocks("yaml")[0],
        DOCS["ingress"].blocks("yaml")[0],
    ],
)
def test_a_configuration_on_a_page_is_accepted_without_a_warning(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if "issuers:" not in text:
        monkeypatch.setenv("COGNITO_USER_POOL_ID", "us-east-1_Example")
    (tmp_path / "m2m.yaml").write_text(text)
    assert cli.main(["check", "--config", str(tmp_path / "m2m.yaml")]) == 0
    assert [line for line in caplog.messages if "is not there yet" not in line] == []  # a Pod has these files


def test_the_files_on_the_canarys_page_are_accepted(tmp_path: Path) -> None:
    page = DOCS["canary"].blocks("yaml")
    for text in page[:2]:
        (tmp_path / "canary.yaml").write_text(text)
        assert canary.load(tmp_path / "canary.yaml").identity
    assert page[1] == CANARY.read_text()


def test_the_canarys_page_has_a_row_for_each_check_and_metric() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCS["canary"].path.read_text(), re.MULTILINE)
    assert rows == [*canary.CHECKS, *promql.CANARY]


def test_the_canary_exposes_the_metrics_that_its_page_names() -> None:
    exposed = {family.name for family in canary.Canary(canary.load(CANARY)).collect()}
    assert {name for name in exposed if name.startswith("m2m_")} == promql.CANARY.keys()


@pytest.mark.parametrize("number", [0, 1])
def test_prometheus_accepts_the_scrape_configuration_which_has_the_job_that_its_rules_ask_for(
    number: int, tmp_path: Path
) -> None:
    configuration = yaml.safe_load(DOCS["monitoring"].blocks("yaml")[number])
    for job in configuration["scrape_configs"]:  # Debian builds Prometheus without the discovery of Kubernetes
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["127.0.0.1:9090"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    shutil.copytree(ALERTS, tmp_path / "rules")
    assert "SUCCESS" in run(binary("promtool"), "check", "config", tmp_path / "prometheus.yml").stdout

    rules = "".join((ALERTS / Path(path).name).read_text() for path in configuration["rule_files"])
    assert set(re.findall(r'job="([^"]+)"', rules)) == {job["job_name"] for job in configuration["scrape_configs"]}


def test_the_monitoring_page_names_every_rule_file_and_dashboard() -> None:
    text = DOCS["monitoring"].path.read_text()
    files = [*ALERTS.glob("*.yaml"), *(ROOT / "grafana" / "dashboards").glob("*.json")]
    assert [path.name for path in files if f"{path.parent.name}/{path.name}" not in text] == []


def test_the_ingress_page_has_a_row_for_every_rule_of_lint() -> None:
    source = "".join(path.read_text() for path in Path(lint.__file__).parent.glob("*.py"))
    rules = set(re.findall(r"\b(?:trap|finding|Finding)\(\s*\"([a-z-]+)\"", source))
    rows = re.findall(r"^\| `([a-z-]+)` \|", DOCS["ingress"].path.read_text(), re.MULTILINE)
    assert (sorted(rows), len(rules) > 15) == (sorted(rules), True)


def test_the_blocks_of_the_ingress_page_are_what_guard_prints() -> None:
    page = DOCS["ingress"]
    assert page.blocks("yaml")[1] == guard.Guard("orders", resource=False).block("ingress-nginx")
    assert page.blocks("nginx") == [guard.Guard("api").block("nginx")]


def test_the_blocks_of_the_page_about_proxies_are_what_guard_prints() -> None:
    page = DOCS["proxies"]
    shown = [*page.blocks("yaml"), *page.blocks("caddyfile"), *page.blocks("haproxy")]
    others = guard.PROXIES.keys() - {"nginx", "ingress-nginx"}
    assert sorted(shown) == sorted(guard.Guard("api", resource=False).block(proxy) for proxy in others)


def test_help_names_every_proxy_of_guard() -> None:
    assert ", ".join(guard.PROXIES) in help_of("guard")
