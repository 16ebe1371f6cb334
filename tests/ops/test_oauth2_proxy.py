"""The recorded metrics of oauth2-proxy are those of the real program, where `make oauth2-proxy` has built it."""

import os
import shutil

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from grafana.live import FIXTURE
from tests.ops.promql import exprs, named
from tests.programs import CACHE, running
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background, bind, free_port, port_of

PROGRAM = shutil.which("oauth2-proxy", path=f"{os.environ['PATH']}:{CACHE / 'bin'}")

pytestmark = pytest.mark.skipif(not PROGRAM, reason="oauth2-proxy is not built: `make oauth2-proxy`")

Labels = dict[str, set[str]]


def labels(families: list[Metric]) -> Labels:
    """Each sample's name and the names of its labels."""
    found: Labels = {}
    for sample in (sample for family in families for sample in family.samples):
        found[sample.name] = found.get(sample.name, set()) | set(sample.labels)
    return found


def own(found: Labels) -> Labels:
    return {name: names for name, names in found.items() if name.startswith("oauth2_proxy_")}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    """The metrics after health checks, two session checks (one with a token) and a login's first step."""
    assert PROGRAM
    ports, listener = (free_port(), free_port()), bind()
    issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
    token = issuer.mint(issuer.person_claims("alice", "app") | {"aud": "app", "email": "alice@example.com"})
    options = {
        "http-address": f"127.0.0.1:{ports[0]}", "metrics-address": f"127.0.0.1:{ports[1]}", "provider": "oidc",
        "oidc-issuer-url": issuer.url, "skip-oidc-discovery": "true", "oidc-jwks-url": issuer.jwks_url,
        "login-url": f"{issuer.url}/login", "redeem-url": f"{issuer.base}/oauth2/token", "client-id": "app",
        "client-secret": "secret", "cookie-secret": "0123456789abcdef0123456789abcdef", "email-domain": "*",
        "skip-jwt-bearer-tokens": "true", "upstream": "static://200", "insecure-oidc-allow-unverified-email": "true",
    }  # fmt: skip
    command = [PROGRAM, *(f"--{name}={value}" for name, value in options.items())]
    with (
        Background(issuer.app, listener),
        httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", trust_env=False) as client,
        running(command, tmp_path_factory.mktemp("oauth2-proxy") / "log", f"{client.base_url}/ping"),
    ):
        statuses = [client.get(path).status_code for path in ("/ping", "/ready", "/oauth2/auth", "/oauth2/start")]
        statuses.append(client.get("/oauth2/auth", headers={"Authorization": f"Bearer {token}"}).status_code)
        assert statuses == [200, 200, 401, 302, 202]
        text = httpx.get(f"http://127.0.0.1:{ports[1]}/metrics", trust_env=False).text
    return list(text_string_to_metric_families(text))


def test_its_metrics_and_labels_are_the_recorded_ones(scraped: list[Metric]) -> None:
    recorded = list(text_string_to_metric_families(FIXTURE.read_text()))
    assert own(labels(scraped)) == own(labels(recorded))


def test_health_checks_are_not_counted(scraped: list[Metric]) -> None:
    [requests] = [family for family in scraped if family.name == "oauth2_proxy_requests"]
    counted = {sample.labels["code"]: sample.value for sample in requests.samples if sample.name.endswith("_total")}
    assert counted == {"401": 1, "202": 1, "302": 1}


def test_it_exposes_everything_that_its_dashboard_reads(scraped: list[Metric]) -> None:
    assert {read.metric for expr in exprs("oauth2-proxy") for read in named(expr)} - {"up"} <= labels(scraped).keys()
