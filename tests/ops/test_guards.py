"""The components that guard an API are what `guard` prints, with the params where they belong."""

import re
from pathlib import Path

import pytest
import yaml

from k8s import guards
from tests.kustomize import K8S, PARAMS, Manifest, build, of_kind, write
from verifier.tools.guard import PROXIES, Guard

each_component = pytest.mark.parametrize("name", guards.PROXIES)


def peers(objects: list[Manifest]) -> dict[str, list[Manifest]]:
    """Who may call the verifier's port for requests, and who the API."""
    return {each["metadata"]["name"]: each["spec"]["ingress"][0]["from"] for each in of_kind(objects, "NetworkPolicy")}


@each_component
def test_a_component_is_what_guard_prints(name: str) -> None:
    text = (K8S / "components" / name / "guard.yaml").read_text()

    assert text == guards.text(name), "run `make manifests`"
    printed = [each for each in yaml.safe_load_all(Guard("api").block(name)) if "kind" in each]
    assert [each for each in yaml.safe_load_all(text) if each] == printed


def test_every_proxy_of_guard_that_has_objects_has_a_component() -> None:
    with_objects = {name for name in PROXIES if re.search("^kind:", Guard("api").block(name), re.MULTILINE)}

    assert with_objects - {"cilium", "ingress-nginx"} == set(guards.PROXIES)  # ingress-nginx's was here before


def test_ciliums_objects_are_those_of_the_component_gateway_api() -> None:
    cilium, gateway_api = (list(yaml.safe_load_all(Guard("api").block(name))) for name in ("cilium", "gateway-api"))

    assert cilium == gateway_api


@each_component
def test_the_params_and_the_namespace_reach_every_object(tmp_path: Path, name: str) -> None:
    objects = build(write(tmp_path, [name]))
    base = {(each["kind"], each["metadata"]["name"]) for each in build(K8S / "base")}
    added = [each for each in objects if (each["kind"], each["metadata"]["name"]) not in base]
    text = yaml.safe_dump_all(added)

    assert re.findall(r"api\.example\.com|(?<!-)\bauth\b(?!-)|\bdefault\b|8080", text) == []
    assert {each["metadata"].get("namespace") for each in added if each["kind"] != "IngressClass"} == {"other"}
    istio = {"host", "app"}  # it guards pods, whichever route leads there
    wanted = istio if name == "istio" else {"host", "service", "port"}
    assert {key for key in PARAMS if re.search(rf"\b{re.escape(PARAMS[key])}\b", text)} == wanted


@each_component
@pytest.mark.parametrize("policies", [True, False], ids=["network-policy", "none"])
def test_the_network_policies_admit_the_proxy_beside_ingress_nginx(tmp_path: Path, name: str, policies: bool) -> None:
    before = peers(build(write(tmp_path, ["network-policy"])))
    after = peers(build(write(tmp_path / "second", ["network-policy", name] if policies else [name])))

    assert after.keys() == (before.keys() if policies else set())
    for policy, admitted in after.items():
        (added, *further) = admitted[len(before[policy]) :]
        assert admitted[: len(before[policy])] == before[policy]
        assert added["namespaceSelector"]["matchLabels"].keys() == {"kubernetes.io/metadata.name"}
        assert len(added["podSelector"]["matchLabels"]) == 1
        assert further == ([{"podSelector": {}}] if (name, policy) == ("istio", "m2m-verifier") else [])


def test_traefik_and_ingress_nginx_serve_ingresses_of_different_classes(tmp_path: Path) -> None:
    both = ["ingress-nginx", "resource-metadata", "traefik-ingress-nginx"]
    objects = build(write(tmp_path, both))
    classes = {each["metadata"]["name"]: each["spec"]["ingressClassName"] for each in of_kind(objects, "Ingress")}
    [own] = of_kind(objects, "IngressClass")

    assert classes == {
        "m2m-api": "nginx", "m2m-api-metadata": "nginx", "api": "traefik-nginx", "api-metadata": "traefik-nginx",
    }  # fmt: skip
    assert own["metadata"]["name"] == "traefik-nginx"
    assert own["spec"]["controller"] != "k8s.io/ingress-nginx"
