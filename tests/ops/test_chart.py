"""The Helm chart makes the objects of the kustomizations, and its schema refuses what would have no effect."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import Page

from verifier import __version__
from verifier.config.model import Settings

Manifest = dict[str, Any]
Values = dict[str, Any]
Helm = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "k8s" / "chart"
OVERLAYS = ROOT / "k8s" / "overlays"
NGINX = "nginx.ingress.kubernetes.io/"


def values(overlay: str, host: str, service: str, **others: Any) -> Values:
    """An overlay's params, as values of the chart."""
    ingress = {"enabled": True, "host": host, "service": {"name": service, "port": 8080}, "policy": "api"}
    return {
        "config": yaml.safe_load((OVERLAYS / overlay / "policy.yaml").read_text()),
        "ingress": {**ingress, "metadata": True, "certManager": True},
        "networkPolicy": {"enabled": True, "api": {"labels": {"app.kubernetes.io/name": service}}},
        "monitoring": {"enabled": True},
        **others,
    }


VALUES = {
    "homelab": values(
        "homelab", "api.lab.informationcart.com", "otel-demo",
        env={"COGNITO_REGION": "us-east-1", "COGNITO_USER_POOL_ID": "us-east-1_Example"},
    ),
    "production": values(
        "production", "api.informationcart.com", "api",
        env={"COGNITO_REGION": "us-east-1"}, envSecret={"required": True},
        highAvailability={"enabled": True}, admissionPolicy={"enabled": True},
    ),
}  # fmt: skip


[README_VALUES] = [yaml.safe_load(block) for block in Page(ROOT / "k8s" / "README.md").blocks("yaml")]


@pytest.fixture
def helm(tool: Callable[..., str], tmp_path: Path) -> Helm:
    """Run helm on the chart, with values."""
    program = tool("helm")

    def run(*arguments: str, given: Values, check: bool = True) -> subprocess.CompletedProcess[str]:
        (tmp_path / "values.yaml").write_text(yaml.safe_dump(given))
        command = [program, *arguments, f"--values={tmp_path / 'values.yaml'}", "--kube-version=1.37"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def template(helm: Helm, given: Values, namespace: str = "auth") -> list[Manifest]:
    printed = helm("template", "m2m-verifier", str(CHART), "--namespace", namespace, given=given).stdout
    return [each for each in yaml.safe_load_all(printed) if each]


def comparable(objects: list[Manifest]) -> dict[str, Manifest]:
    """By kind and name, without what differs on purpose: the namespace, and how a new environment rolls the pods."""
    found = {}
    for each in json.loads(re.sub(r"(m2m-verifier-env)-[0-9a-z]{10}\b", r"\1", json.dumps(objects))):
        each["metadata"].pop("namespace", None)
        if each["kind"] == "Deployment":
            each["spec"]["template"]["metadata"].pop("annotations", None)
        if "policy.yaml" in each.get("data", {}):
            each["data"]["policy.yaml"] = yaml.safe_load(each["data"]["policy.yaml"])
        found[f"{each['kind']}/{each['metadata']['name']}"] = each
    return found


@pytest.mark.parametrize("overlay", VALUES)
def test_the_chart_makes_the_objects_of_an_overlay(
    helm: Helm, build: Callable[[Path], list[Manifest]], overlay: str
) -> None:
    built = build(OVERLAYS / overlay)
    namespace = built[0]["metadata"]["namespace"]

    assert comparable(template(helm, VALUES[overlay], namespace)) == comparable(built)


@pytest.mark.parametrize("given", [{}, README_VALUES, *VALUES.values()], ids=["defaults", "README", *VALUES])
def test_helm_lint_finds_nothing(helm: Helm, given: Values) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), given=given).stdout


def test_the_defaults_are_the_verifier_alone(helm: Helm) -> None:
    assert sorted(comparable(template(helm, {}))) == [
        "ConfigMap/m2m-verifier-env", "ConfigMap/m2m-verifier-policy", "Deployment/m2m-verifier",
        "Service/m2m-verifier", "ServiceAccount/m2m-verifier",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"imagge": {}}, "imagge"),
        ({"config": {"polices": {}}}, "polices"),
        ({"env": {"COGNITO-POOL": "x"}}, "COGNITO-POOL"),
        ({"env": {"M2M_WORKERS": 2}}, "M2M_WORKERS"),
        ({"ingress": {"enabled": True}}, "host"),
        ({"ingress": {"proxy": "apache"}}, "proxy"),
        ({"image": {"digest": "sha256:1"}}, "digest"),
        ({"replicas": "2"}, "replicas"),
    ],
)
def test_the_schema_refuses(helm: Helm, given: Values, said: str) -> None:
    done = helm("template", str(CHART), given=given, check=False)

    assert (done.returncode != 0, said in done.stderr) == (True, True), done.stderr


def test_the_schema_knows_every_section_of_the_configuration() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert schema["properties"]["config"]["properties"].keys() == Settings.model_fields.keys()


def test_the_version_is_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize(
    ("image", "name"),
    [({}, f":{__version__}"), ({"tag": "1"}, ":1"), ({"digest": f"sha256:{'a' * 64}"}, f"@sha256:{'a' * 64}")],
)
def test_the_image_is_named_by_version_tag_or_digest(helm: Helm, image: Values, name: str) -> None:
    deployment = comparable(template(helm, {"image": image}))["Deployment/m2m-verifier"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]

    assert container["image"] == f"ghcr.io/informationcart/m2m-verifier{name}"


def test_a_changed_environment_rolls_the_pods_and_a_changed_policy_does_not(helm: Helm) -> None:
    first, policy, environment = (
        comparable_template(helm, given)
        for given in ({}, {"config": {"leeway": 5}}, {"env": {"COGNITO_USER_POOL_ID": "us-east-1_Example"}})
    )

    assert (first == policy, first == environment) == (True, False)


def comparable_template(helm: Helm, given: Values) -> Any:
    [deployment] = [each for each in template(helm, given) if each["kind"] == "Deployment"]
    return deployment["spec"]["template"]


@pytest.mark.parametrize(
    ("proxy", "path"), [("ingress-nginx", "/verify/api"), ("traefik-ingress-nginx", "/forward-auth/api")]
)
def test_the_ingress_asks_the_path_for_its_proxy_and_lists_mapped_headers(helm: Helm, proxy: str, path: str) -> None:
    given = VALUES["homelab"] | {"config": {"headers": {"X-User-ID": "sub"}}}
    given |= {"ingress": VALUES["homelab"]["ingress"] | {"proxy": proxy}}
    annotations = comparable(template(helm, given))["Ingress/m2m-api"]["metadata"]["annotations"]

    assert annotations[f"{NGINX}auth-url"] == f"http://m2m-verifier.auth.svc.cluster.local:8000{path}"
    assert annotations[f"{NGINX}auth-response-headers"].endswith(", X-M2M-Role, X-M2M-Issuer, X-User-ID")


def test_annotations_may_change_all_but_the_guard(helm: Helm) -> None:
    changed = {
        f"{NGINX}limit-rps": "9",
        f"{NGINX}auth-url": "http://elsewhere",
        f"{NGINX}auth-response-headers": "none",
    }
    given = VALUES["homelab"] | {"ingress": VALUES["homelab"]["ingress"] | {"annotations": changed}}
    annotations = comparable(template(helm, given))["Ingress/m2m-api"]["metadata"]["annotations"]
    before = comparable(template(helm, VALUES["homelab"]))["Ingress/m2m-api"]["metadata"]["annotations"]

    assert annotations == before | {f"{NGINX}limit-rps": "9"}


def test_a_large_number_of_the_configuration_stays_a_whole_one(helm: Helm) -> None:
    config = {"cache": {"size": 10_000_000, "ttl": 300}}

    assert comparable(template(helm, {"config": config}))["ConfigMap/m2m-verifier-policy"]["data"]["policy.yaml"] == {
        **config, "policies": {"default": {}},
    }  # fmt: skip


def test_the_admission_policy_follows_namespace_class_and_mapped_headers(helm: Helm) -> None:
    given = {
        "admissionPolicy": {"enabled": True}, "ingress": {"className": "internal"},
        "config": {"headers": {"X-User": "sub"}},
    }  # fmt: skip
    policy = comparable(template(helm, given))["ValidatingAdmissionPolicy/m2m-verifier-guard"]
    written = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}

    assert written["url"] == "'http://m2m-verifier.auth.svc.cluster.local:8000/verify'"
    assert written["classes"] == "['internal']"
    assert written["headers"] == "['x-m2m-client-id', 'x-m2m-scope', 'x-m2m-role', 'x-m2m-issuer', 'x-user']"


def test_a_package_holds_the_linked_files(tool: Callable[..., str], tmp_path: Path, helm: Helm) -> None:
    subprocess.run([tool("helm"), "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    packed = helm("template", str(tmp_path / f"m2m-verifier-{__version__}.tgz"), given=VALUES["homelab"])

    assert packed.stdout.count("\nkind: ") == len(template(helm, VALUES["homelab"]))
