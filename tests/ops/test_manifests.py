"""The manifests build, fit Kubernetes' schemas, and agree with each other and with the program."""

import copy
import functools
import json
import operator
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml
from starlette.routing import Route

from k8s import guards
from tests.e2e.stage import Serve, eventually, resident
from tests.kustomize import (
    CANARY,
    FOLDERS,
    K8S,
    MINIMAL,
    OAUTH2_PROXY,
    OVERLAYS,
    PARAMS,
    Manifest,
    build,
    named,
    of_kind,
    pod_of,
)
from tests.minting import SigningKey
from tests.programs import ROOT, m2m_verifier
from verifier import __version__
from verifier.app import create_app
from verifier.config.environment import Environment
from verifier.config.load import load
from verifier.policy.resources import WELL_KNOWN
from verifier.server import run as server

SCHEMAS = Path(__file__).parent / "schemas"
HOMELAB, PRODUCTION = OVERLAYS
WORKLOADS = [
    *((folder, "m2m-verifier") for folder in OVERLAYS),
    (OAUTH2_PROXY, "oauth2-proxy"),
    (CANARY, "m2m-verifier-canary"),
]
KUBERNETES = ["1.30", "1.37"]  # the oldest that knows preStop's sleep, and the newest whose schemas are to be had

DEFAULTS = Environment.model_construct()
NGINX = "nginx.ingress.kubernetes.io/"
GRAFANA = ROOT / "grafana"
JOB = r'job=\\?"([^"\\]+)'


def walk(node: object) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(request.param)


@pytest.fixture
def pod(overlay: list[Manifest]) -> Any:
    return pod_of(overlay)


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    return pod["containers"][0]


@pytest.fixture
def api(overlay: list[Manifest]) -> Manifest:
    return named(overlay, "Ingress", "m2m-api")


@pytest.fixture
def environment(overlay: list[Manifest], container: Manifest) -> dict[str, str]:
    """What the container is given, but for the Secret, which is in no repository."""
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            given |= named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    return given


@pytest.fixture
def policy(overlay: list[Manifest], tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(named(overlay, "ConfigMap", "m2m-verifier-policy")["data"]["policy.yaml"])
    return path


# What there is builds, and fits its schema


def validate(manifest: Manifest, version: str) -> None:
    schema = SCHEMAS / f"{manifest['kind'].lower()}.json"
    if schema.exists():
        jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_object_fits_its_schema_strictly(folder: Path, version: str) -> None:
    for manifest in build(folder):
        validate(manifest, version)


@pytest.mark.parametrize(
    ("folder", "kind", "place"),
    [
        ("base", "Deployment", ("spec", "template", "spec")),
        ("overlays/homelab", "ServiceMonitor", ("spec", "endpoints", 0)),
        ("overlays/homelab", "Issuer", ("spec", "acme", "solvers", 0, "dns01", "cloudflare")),
    ],
)
def test_a_misspelt_field_would_not_fit(folder: str, kind: str, place: tuple[str | int, ...]) -> None:
    manifest = copy.deepcopy(of_kind(build(K8S / folder), kind)[0])
    functools.reduce(operator.getitem, place, manifest)["misspelt"] = "x"

    with pytest.raises(jsonschema.ValidationError):
        validate(manifest, KUBERNETES[-1])


def test_every_file_is_named_by_the_kustomization_beside_it_and_every_component_by_one_that_is_tested() -> None:
    kustomizations = {path.parent: yaml.safe_load(path.read_text()) for path in K8S.rglob("kustomization.yaml")}
    used = {(folder / name).resolve() for folder in FOLDERS for name in components(folder)}

    used |= {K8S / "components" / name for name in guards.PROXIES}  # in test_guards.py
    assert used == {path.resolve() for path in (K8S / "components").iterdir()}
    files = [path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml" and "chart" not in path.parts]
    assert [path for path in files if path.name not in list(walk(kustomizations[path.parent]))] == []
    deprecated = {"bases", "commonLabels", "imageTags", "patchesJson6902", "patchesStrategicMerge", "vars"}
    assert [folder for folder, written in kustomizations.items() if not deprecated.isdisjoint(written)] == []


def components(folder: Path) -> list[str]:
    return yaml.safe_load((folder / "kustomization.yaml").read_text()).get("components", [])


def test_everything_is_in_the_overlays_namespace_and_nothing_is_a_secret(overlay: list[Manifest]) -> None:
    of_the_cluster = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    namespaces = {m["metadata"].get("namespace") for m in overlay if m["kind"] not in of_the_cluster}
    assert (len(namespaces), None in namespaces) == (1, False)
    assert of_kind(overlay, "Secret") == []


# Objects agree with each other


def test_every_selector_finds_the_pods(overlay: list[Manifest]) -> None:
    deployment = named(overlay, "Deployment")
    template = deployment["spec"]["template"]
    selectors = [manifest["spec"]["selector"] for manifest in of_kind(overlay, "Service")]
    labels = [deployment["spec"]["selector"]]
    labels += [manifest["spec"]["selector"] for manifest in of_kind(overlay, "PodDisruptionBudget")]
    labels += [named(overlay, "NetworkPolicy")["spec"]["podSelector"]]
    labels += [constraint["labelSelector"] for constraint in template["spec"]["topologySpreadConstraints"]]
    selectors += [selector["matchLabels"] for selector in labels]

    assert [one for one in selectors if not one.items() <= template["metadata"]["labels"].items()] == []


@pytest.mark.parametrize(("folder", "name"), WORKLOADS)
def test_servicemonitor_service_and_container_agree_on_labels_and_ports(folder: Path, name: str) -> None:
    objects = build(folder)
    monitor, service = named(objects, "ServiceMonitor", name)["spec"], named(objects, "Service", name)
    ports = service["spec"]["ports"]

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {port["name"] for port in ports}
    assert {port["targetPort"] for port in ports} == {
        port["name"] for port in pod_of(objects, name)["containers"][0]["ports"]
    }


def test_the_autoscaler_sets_the_number_in_production_and_without_one_there_are_two() -> None:
    production, homelab = (build(folder) for folder in (PRODUCTION, HOMELAB))
    [target] = [scaler["spec"]["scaleTargetRef"] for scaler in of_kind(production, "HorizontalPodAutoscaler")]

    assert "replicas" not in named(production, target["kind"], target["name"])["spec"]
    assert named(homelab, "Deployment")["spec"]["replicas"] == 2


def test_the_configuration_is_where_the_program_looks(
    overlay: list[Manifest], pod: Manifest, container: Manifest
) -> None:
    [config] = [entry["value"] for entry in container["env"] if entry["name"] == "M2M_CONFIG"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == str(Path(config).parent)]
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]

    assert Path(config).name in named(overlay, "ConfigMap", volume["configMap"]["name"])["data"]
    assert "subPath" not in mount  # a ConfigMap's change would never arrive


def test_guarded_and_public_ingress_share_host_and_a_certificate_of_the_issuer_that_is_here(
    overlay: list[Manifest], api: Manifest
) -> None:
    public = named(overlay, "Ingress", "m2m-api-metadata")
    issuer = named(overlay, "Issuer", api["metadata"]["annotations"]["cert-manager.io/issuer"])

    assert public["spec"]["tls"] == api["spec"]["tls"]
    assert [list(solver) for solver in issuer["spec"]["acme"]["solvers"]] == [["dns01"]]


@pytest.mark.parametrize("folder", [*OVERLAYS, MINIMAL], ids=lambda path: path.name)
def test_the_params_block_is_all_that_is_edited(folder: Path, tmp_path: Path) -> None:
    for name in ("k8s", "grafana", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    file = tmp_path / folder.relative_to(ROOT) / "kustomization.yaml"
    written = yaml.safe_load(file.read_text()) | {"namespace": "other"}
    [params] = [each for each in written["configMapGenerator"] if each["name"] == "params"]
    params["literals"] = [f"{name}={value}" for name, value in PARAMS.items()]
    file.write_text(yaml.safe_dump(written))
    objects = build(file.parent)
    specs = [manifest["spec"] for manifest in of_kind(objects, "Ingress")]
    hosts = {(spec["rules"][0]["host"], spec["tls"][0]["hosts"][0]) for spec in specs}
    backend = named(objects, "Ingress", "m2m-api")["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    selectors = {m["metadata"]["name"]: m["spec"]["podSelector"] for m in of_kind(objects, "NetworkPolicy")}
    urls = set(re.findall("//(m2m-verifier.[a-z.]*):8000", json.dumps(objects)))
    other = {"matchLabels": {"app.kubernetes.io/name": "other-app"}}

    assert hosts == {("other.example", "other.example")}
    assert backend["service"] == {"name": "other-service", "port": {"number": 81}}
    assert urls == {"m2m-verifier.other.svc.cluster.local"}
    assert selectors.get("m2m-api", other) == other
    assert "params" not in {each["metadata"]["name"].partition("-")[0] for each in objects}


def test_only_the_ingress_controller_may_call_the_api_and_the_verifier(overlay: list[Manifest]) -> None:
    verifier, api = (named(overlay, "NetworkPolicy", name)["spec"] for name in ("m2m-verifier", "m2m-api"))

    assert api == {
        "podSelector": api["podSelector"], "policyTypes": ["Ingress"],
        "ingress": [{"from": verifier["ingress"][0]["from"]}],
    }  # fmt: skip


def test_oauth2_proxy_serves_its_metrics_on_the_port_that_is_named() -> None:
    [container] = pod_of(build(OAUTH2_PROXY), "oauth2-proxy")["containers"]
    [port] = [port["containerPort"] for port in container["ports"] if port["name"] == "metrics"]

    assert container["args"] == ["--http-address=0.0.0.0:4180", f"--metrics-address=0.0.0.0:{port}"]


def test_grafanas_sidecar_finds_every_dashboard_as_it_is(overlay: list[Manifest]) -> None:
    boards = [m for m in of_kind(overlay, "ConfigMap") if m["metadata"]["labels"].get("grafana_dashboard") == "1"]
    texts = {name: text for board in boards for name, text in board["data"].items()}

    assert texts == {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}
    assert max(len(json.dumps(board)) for board in boards) < 2**20  # what the API server accepts


@pytest.mark.parametrize(("folder", "name"), WORKLOADS)
def test_rules_ship_with_what_they_watch_and_the_operator_selects_both_by_one_label(folder: Path, name: str) -> None:
    # Elsewhere an alert on a missing job would fire for ever.
    [rules], [monitor] = (of_kind(build(folder), kind) for kind in ("PrometheusRule", "ServiceMonitor"))

    assert [m["metadata"]["name"] for m in (rules, monitor)] == [name, name]
    assert [m["metadata"]["labels"]["release"] for m in (rules, monitor)] == ["kube-prometheus-stack"] * 2
    assert set(re.findall(JOB, json.dumps(rules))) == {name}


def test_the_jobs_that_dashboards_and_alerts_name_are_services() -> None:
    # A ServiceMonitor's job is its Service's name.
    folders = (HOMELAB, OAUTH2_PROXY, CANARY)
    services = {service["metadata"]["name"] for folder in folders for service in of_kind(build(folder), "Service")}
    sources = [path for pattern in ("*.yaml", "*.json") for path in GRAFANA.rglob(pattern) if "tests" not in path.parts]

    assert set(re.findall(JOB, "".join(path.read_text() for path in sources))) == services


# Objects agree with the program


def test_ports_are_the_programs_and_nginx_reaches_one_and_prometheus_the_other(
    overlay: list[Manifest], container: Manifest
) -> None:
    http, metrics = DEFAULTS.m2m_port, DEFAULTS.m2m_metrics_port
    service = named(overlay, "Service")
    network = named(overlay, "NetworkPolicy")

    for ports, key in ((container["ports"], "containerPort"), (service["spec"]["ports"], "port")):
        assert {port["name"]: port[key] for port in ports} == {"http": http, "metrics": metrics}
    assert {
        source["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: source["ports"]
        for source in network["spec"]["ingress"]
    } == {
        "ingress-nginx": [{"protocol": "TCP", "port": http}],
        "monitoring": [{"protocol": "TCP", "port": metrics}],
    }


def routes() -> set[str]:
    settings = load(None, Environment.model_construct(cognito_user_pool_id="us-east-1_Example"))
    return {route.path for route in create_app(settings).routes if isinstance(route, Route)}


def test_probes_ask_what_the_program_answers(container: Manifest) -> None:
    asked = [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]

    assert [(probe["port"], probe["path"]) for probe in asked] == [
        ("http", "/health"), ("http", "/health"), ("http", "/ready"),
    ]  # fmt: skip
    assert {"/health", "/ready"} <= routes()


def test_prometheus_asks_what_the_program_answers(overlay: list[Manifest]) -> None:
    async def nothing() -> list[Any]:
        return []

    paths = {e["path"] for m in of_kind(overlay, "ServiceMonitor") for e in m["spec"]["endpoints"]}

    assert paths == {route.path for route in server.metrics_app(nothing).routes if isinstance(route, Route)}


def test_the_public_ingress_serves_the_metadata_document_alone(overlay: list[Manifest]) -> None:
    [rule] = named(overlay, "Ingress", "m2m-api-metadata")["spec"]["rules"]

    assert [path["path"] for path in rule["http"]["paths"]] == [WELL_KNOWN]
    assert WELL_KNOWN in routes()


def test_every_variable_is_one_that_the_program_reads(environment: dict[str, str]) -> None:
    assert environment.keys() <= {name.upper() for name in Environment.model_fields}


def test_the_arguments_are_a_command_of_the_program(container: Manifest) -> None:
    status, _, errors = m2m_verifier(*container["args"], env={})

    assert (status, "no issuer" in errors) == (2, True)  # an unknown argument would be reported first


def test_check_accepts_the_policy(policy: Path, environment: dict[str, str]) -> None:
    given = {"COGNITO_USER_POOL_ID": "us-east-1_FromSecret"} | environment | {"M2M_CONFIG": str(policy)}
    status, _, errors = m2m_verifier("check", env=given)

    assert (status, errors) == (0, "")


def test_the_base_starts_nothing_without_an_issuer(tmp_path: Path) -> None:
    data = named(build(K8S / "base"), "ConfigMap", "m2m-verifier-policy")["data"]
    (tmp_path / "policy.yaml").write_text(data["policy.yaml"])
    status, _, errors = m2m_verifier("check", "--config", tmp_path / "policy.yaml", env={})

    assert (status, "no issuer" in errors) == (2, True)


def test_lint_finds_no_trap(overlay: list[Manifest], policy: Path, tmp_path: Path) -> None:
    built = tmp_path / "built.yaml"
    built.write_text(yaml.safe_dump_all(overlay))

    printed = m2m_verifier("lint", "--config", policy, built, env={"COGNITO_USER_POOL_ID": "us-east-1_FromSecret"})
    assert printed == (0, "1 file(s), 2 route(s), 1 guard(s): no finding(s)\n", "")


def test_the_version_is_this_one(container: Manifest) -> None:
    assert container["image"].rpartition(":")[2] == __version__


def test_the_drain_fits_into_the_grace_period(pod: Manifest, container: Manifest) -> None:
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pause + server.DRAIN < pod["terminationGracePeriodSeconds"]


def test_production_does_not_start_without_its_secret() -> None:
    assert pod_of(build(PRODUCTION))["containers"][0]["envFrom"][1] == {
        "secretRef": {"name": "m2m-verifier-env", "optional": False}
    }


# What the pod may do


def test_the_pod_meets_the_restricted_standard_and_has_no_token_of_its_own(
    overlay: list[Manifest], pod: Manifest, container: Manifest
) -> None:
    account = named(overlay, "ServiceAccount", pod["serviceAccountName"])

    assert (pod["automountServiceAccountToken"], account["automountServiceAccountToken"]) == (False, False)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_the_canary_may_do_no_more_than_the_verifier_and_its_path_has_the_apis_guard() -> None:
    objects = build(CANARY)
    verifier, canary = pod_of(objects), pod_of(objects, "m2m-verifier-canary")
    [rule] = named(objects, "Ingress", "m2m-api")["spec"]["rules"]
    backends = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}

    for field in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        assert canary[field] == verifier[field]
    assert canary["containers"][0]["securityContext"] == verifier["containers"][0]["securityContext"]
    assert canary["containers"][0]["image"] == verifier["containers"][0]["image"]
    assert backends == {"/": "api", "/m2m-canary": "m2m-verifier-canary"}


def test_the_canarys_file_secret_and_path_are_where_it_looks_for_them() -> None:
    objects = build(CANARY)
    pod = pod_of(objects, "m2m-verifier-canary")
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    [config] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    [secret] = [volume["secret"]["items"][0]["path"] for volume in pod["volumes"] if "secret" in volume]
    written = yaml.safe_load(named(objects, "ConfigMap", config)["data"]["canary.yaml"])

    assert f"--config={mounts['config']}/canary.yaml" in container["args"]
    assert written["token"]["client_secret_file"] == f"{mounts['secret']}/{secret}"
    assert urlsplit(written["url"]).path == "/m2m-canary"
    status, _, errors = m2m_verifier(*container["args"], env={})
    assert (status, "canary.yaml: No such file" in errors) == (2, True)  # an unknown argument would be reported first


def test_memory_is_limited_and_cpu_is_not(container: Manifest) -> None:
    assert container["resources"] == {"requests": {"cpu": "50m", "memory": "70Mi"}, "limits": {"memory": "128Mi"}}


def test_a_server_fits_into_its_request_and_a_reload_into_its_limit(container: Manifest, tmp_path: Path) -> None:
    # tests/e2e/test_memory.py fills the caches; this is the rest.
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [SigningKey(os.urandom(32), "HS256", "1").jwk()]}))
    issuer = {"name": "a", "issuer": "x", "jwks_file": str(keys), "algorithms": ["HS256"], "audience": ["b"]}
    with Serve({"issuers": [issuer]}, tmp_path) as serve:
        serve.write({"issuers": [issuer], "leeway": 5})
        eventually(lambda: "is in force" in serve.log, "the reload is in force")
        used, peak = (resident(serve.process.pid, kind) / 1024 for kind in ("VmRSS", "VmHWM"))
    memory = {kind: int(values["memory"].removesuffix("Mi")) for kind, values in container["resources"].items()}

    assert (used < memory["requests"], peak < memory["limits"]) == (True, True), (used, peak)


def test_the_pod_may_ask_dns_and_public_https_alone(overlay: list[Manifest]) -> None:
    network = named(overlay, "NetworkPolicy")
    dns, https = network["spec"]["egress"]

    assert sorted(network["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    assert ({port["port"] for port in dns["ports"]}, {port["port"] for port in https["ports"]}) == ({53}, {443})
    assert all("169.254.0.0/16" in to["ipBlock"]["except"] or ":" in to["ipBlock"]["cidr"] for to in https["to"])
