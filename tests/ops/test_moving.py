"""The walk of docs/moving.md: its kustomizations, its configuration and what its commands name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kustomize import K8S, Manifest, build, named, of_kind
from tests.ops.moving import ANNOTATIONS, COMMANDS, DELETES, PAGE, POLICY, VALUES, overlay
from tests.programs import m2m_verifier
from verifier.config.environment import Environment
from verifier.config.load import load

At = Callable[[int], list[Manifest]]


@pytest.fixture
def at(tmp_path: Path) -> At:
    """The objects after a step."""
    return lambda step: build(overlay(tmp_path / str(step), step, "network-policy"))


def names(objects: list[Manifest]) -> set[str]:
    return {f"{each['kind']}/{each['metadata']['name']}".lower() for each in objects}


def address(objects: list[Manifest]) -> Any:
    [middleware] = of_kind(objects, "Middleware")
    return middleware["spec"]["forwardAuth"]["address"]


def test_step_3_adds_the_guard_with_the_second_name_and_leaves_ingress_nginxs_objects_as_they_are(at: At) -> None:
    before, beside = at(2), at(3)

    assert address(beside) == "http://m2m-verifier.api.svc.cluster.local:8000/forward-auth/api-moving"
    assert of_kind(before, "Ingress") == of_kind(beside, "Ingress") != []


def test_what_step_7_deletes_is_what_step_3_added_and_step_8_deletes_what_it_takes_out(at: At) -> None:
    deleted = [set(words[4:]) for words in DELETES]

    assert deleted == [names(at(3)) - names(at(2)), names(at(3)) - names(at(8))]


def test_step_8_leaves_the_policys_own_name_and_traefik_alone_behind_the_network_policies(at: At) -> None:
    after = at(8)
    admitted = [each["spec"]["ingress"][0]["from"] for each in of_kind(after, "NetworkPolicy")]

    assert address(after) == "http://m2m-verifier.api.svc.cluster.local:8000/forward-auth/api"
    assert [[peer["podSelector"]["matchLabels"] for peer in peers] for peers in admitted] == [
        [{"app.kubernetes.io/name": "traefik"}]
    ] * 2


@pytest.mark.parametrize("mode", ["report", "enforce"])
@pytest.mark.parametrize(
    "resource", ["", "    resource: {url: 'https://api.example', authorization_servers: ['https://a']}\n"]
)
def test_the_second_name_has_the_same_policy_in_report_mode_and_then_in_force(
    tmp_path: Path, mode: str, resource: str
) -> None:
    text = POLICY if mode == "report" else re.sub(r"\{<<: (\*api), mode: report\}", r"\1", POLICY)
    assert "`api-moving: *api`" in PAGE.path.read_text()
    (tmp_path / "policy.yaml").write_text(text.replace("    rules:\n", f"{resource}    rules:\n"))
    policies = load(tmp_path / "policy.yaml", Environment.model_construct(cognito_user_pool_id="us-east-1_Example"))
    api, moving = (policies.policies.by_name[name] for name in ("api", "api-moving"))

    assert (api.report, moving.report) == (False, mode == "report")
    written = yaml.safe_load(text)["policies"]
    assert written["api-moving"] == written["api"] | ({"mode": "report"} if moving.report else {})


def test_every_object_and_overlay_that_a_command_names_exists(at: At) -> None:
    known = names(at(3)) | {"deploy/m2m-verifier", "service/traefik"}  # the last one is of Traefik's chart
    words = [word for words in COMMANDS for word in words]

    assert {word for word in words if re.fullmatch(r"[a-z]+/[a-z0-9-]+", word)} - known == set()
    assert {words[0] for words in COMMANDS} == {"helm", "kubectl", "curl"}
    assert len([words for words in COMMANDS if words[-2:] == ["-k", "my-overlay"]]) == 4


def test_the_program_has_the_command_that_the_pod_runs() -> None:
    [line] = [words for words in COMMANDS if "m2m-verifier" in words]
    command = line[line.index("--") + 1 :]
    status, _, errors = m2m_verifier(*command[1:], input="")

    assert command[0] == "m2m-verifier"
    assert (status, "no audit line" in errors) == (2, True), errors


def test_both_ways_to_run_traefik_remove_headers_that_only_look_like_another() -> None:
    for text in (VALUES, ANNOTATIONS):
        arguments = yaml.safe_load(text)["additionalArguments"]
        assert "--entryPoints.websecure.http.aliasHeadersStrategy=delete" in arguments


def test_the_provider_for_annotations_serves_the_class_of_the_component_alone() -> None:
    ingressclass = yaml.safe_load((K8S / "components" / "traefik-ingress-nginx" / "ingressclass.yaml").read_text())
    provider = yaml.safe_load(ANNOTATIONS)["providers"]["kubernetesIngressNGINX"]

    assert provider["controllerClass"] == ingressclass["spec"]["controller"] != "k8s.io/ingress-nginx"


ROWS = re.findall(
    r"^\| `([a-z-]+)` \| (\w+) `([a-z0-9-]+)` \| `(\S+)` \| `(\S+)` \|", PAGE.path.read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("component", "kind", "name", "place", "value"), ROWS)
def test_the_table_names_the_place_of_the_policy(component: str, kind: str, name: str, place: str, value: str) -> None:
    objects = yaml.safe_load_all((K8S / "components" / component / "guard.yaml").read_text())
    found = named([each for each in objects if each], kind, name)
    for key in place.strip("/").split("/"):
        found = found[int(key) if key.isdigit() else key]

    assert f"{found}-moving" == value


def test_the_table_has_every_component_with_objects_that_name_the_policy() -> None:
    folders = {path.parent.name for path in K8S.glob("components/*/guard.yaml")}

    assert {row[0] for row in ROWS} == folders - {"traefik", "traefik-ingress-nginx", "istio"}
