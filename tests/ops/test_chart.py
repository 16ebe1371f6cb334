"""The Helm chart makes the objects of the kustomizations, and its schema refuses what would have no effect."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.kustomize import K8S, OVERLAYS, Manifest, build
from tests.ops.pages import Page
from tests.programs import find, run
from verifier import __version__
from verifier.config.model import Settings

Values = dict[str, Any]

CHART = K8S / "chart"
NGINX = "nginx.ingress.kubernetes.io/"


def values(overlay: str, host: str, service: str, **others: Any) -> Values:
    """An overlay's params, as values of the chart."""
    ingress = {"enabled": True, "host": host, "service": {"name": service, "port": 8080}, "policy": "api"}
    return {
        "config": yaml.safe_load((K8S / "overlays" / overlay / "policy.yaml").read_text()),
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


[README_VALUES] = [yaml.safe_load(block) for block in Page(K8S / "README.md").blocks("yaml")]


def helm(*arguments: str | Path, given: Values, check: bool = True) -> CompletedProcess[str]:
    """Run helm, with values."""
    options = "--values=-", "--kube-version=1.37"
    return run(find("helm"), *arguments, *options, input=yaml.safe_dump(given), check=check)


def template(given: Values, namespace: str = "auth", chart: Path = CHART) -> dict[str, Manifest]:
    """The chart's objects, to be compared."""
    printed = helm("template", "m2m-verifier", chart, "--namespace", namespace, given=given).stdout
    return comparable(each for each in yaml.safe_load_all(printed) if each)


def comparable(objects: Iterable[Manifest]) -> dict[str, Manifest]:
    """By kind and name, without what differs on purpose: the namespace, and the hash in a name."""
    found = {}
    for each in json.loads(re.sub(r"(m2m-verifier-env)-[0-9a-z]{10}\b", r"\1", json.dumps([*objects]))):
        each["metadata"].pop("namespace", None)
        if "policy.yaml" in each.get("data", {}):
            each["data"]["policy.yaml"] = yaml.safe_load(each["data"]["policy.yaml"])
        found[f"{each['kind']}/{each['metadata']['name']}"] = each
    return found


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_chart_makes_the_objects_of_an_overlay(overlay: Path) -> None:
    built = build(overlay)

    made = template(VALUES[overlay.name], built[0]["metadata"]["namespace"])
    del made["Deployment/m2m-verifier"]["spec"]["template"]["metadata"]["annotations"]  # what rolls the pods
    assert made == comparable(built)


@pytest.mark.parametrize("given", [{}, README_VALUES, *VALUES.values()], ids=["defaults", "README", *VALUES])
def test_helm_lint_finds_nothing(given: Values) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, given=given).stdout


def test_the_defaults_are_the_verifier_alone() -> None:
    assert sorted(template({})) == [
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
def test_the_schema_refuses(given: Values, said: str) -> None:
    done = helm("template", CHART, given=given, check=False)

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
def test_the_image_is_named_by_version_tag_or_digest(image: Values, name: str) -> None:
    deployment = template({"image": image})["Deployment/m2m-verifier"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]

    assert container["image"] == f"ghcr.io/informationcart/m2m-verifier{name}"


def test_a_changed_environment_rolls_the_pods_and_a_changed_policy_does_not() -> None:
    first, policy, environment = (
        template(given)["Deployment/m2m-verifier"]["spec"]["template"]
        for given in ({}, {"config": {"leeway": 5}}, {"env": {"COGNITO_USER_POOL_ID": "us-east-1_Example"}})
    )

    assert (first == policy, first == environment) == (True, False)


@pytest.mark.parametrize(
    ("proxy", "path"), [("ingress-nginx", "/verify/api"), ("traefik-ingress-nginx", "/forward-auth/api")]
)
def test_the_ingress_asks_the_path_for_its_proxy_and_lists_mapped_headers(proxy: str, path: str) -> None:
    given = VALUES["homelab"] | {"config": {"headers": {"X-User-ID": "sub"}}}
    given |= {"ingress": VALUES["homelab"]["ingress"] | {"proxy": proxy}}
    annotations = template(given)["Ingress/m2m-api"]["metadata"]["annotations"]

    assert annotations[f"{NGINX}auth-url"] == f"http://m2m-verifier.auth.svc.cluster.local:8000{path}"
    assert annotations[f"{NGINX}auth-response-headers"].endswith(", X-M2M-Role, X-M2M-Issuer, X-User-ID")


def test_annotations_may_change_all_but_the_guard() -> None:
    changed = {
        f"{NGINX}limit-rps": "9",
        f"{NGINX}auth-url": "http://elsewhere",
        f"{NGINX}auth-response-headers": "none",
    }
    given = VALUES["homelab"] | {"ingress": VALUES["homelab"]["ingress"] | {"annotations": changed}}
    annotations = template(given)["Ingress/m2m-api"]["metadata"]["annotations"]
    before = template(VALUES["homelab"])["Ingress/m2m-api"]["metadata"]["annotations"]

    assert annotations == before | {f"{NGINX}limit-rps": "9"}


def test_a_large_number_of_the_configuration_stays_a_whole_one() -> None:
    config = {"cache": {"size": 10_000_000, "ttl": 300}}

    assert template({"config": config})["ConfigMap/m2m-verifier-policy"]["data"]["policy.yaml"] == {
        **config, "policies": {"default": {}},
    }  # fmt: skip


def test_the_admission_policy_follows_namespace_class_and_mapped_headers() -> None:
    given = {
        "admissionPolicy": {"enabled": True}, "ingress": {"className": "internal"},
        "config": {"headers": {"X-User": "sub"}},
    }  # fmt: skip
    policy = template(given)["ValidatingAdmissionPolicy/m2m-verifier-guard"]
    written = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}

    assert written["url"] == "'http://m2m-verifier.auth.svc.cluster.local:8000/verify'"
    assert written["classes"] == "['internal']"
    assert written["headers"] == "['x-m2m-client-id', 'x-m2m-scope', 'x-m2m-role', 'x-m2m-issuer', 'x-user']"


def test_a_package_holds_the_linked_files(tmp_path: Path) -> None:
    run(find("helm"), "package", CHART, "--destination", tmp_path)
    given = VALUES["homelab"]

    assert template(given, chart=tmp_path / f"m2m-verifier-{__version__}.tgz") == template(given)
