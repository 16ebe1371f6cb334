"""A real API server accepts every kustomization and the chart, and applying them again changes nothing."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import guards
from tests import kustomize
from tests.cluster.server import APPLY, ApiServer
from tests.kustomize import FOLDERS, K8S, OVERLAYS
from tests.programs import ROOT, find, run


def versions(server: ApiServer, folder: Path) -> dict[str, str]:
    """The resourceVersion of every object of a kustomization, which rises with each change."""
    found = server.get("--kustomize", str(folder))["items"]
    return {f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in found}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_kustomization_applies_strictly_and_a_second_time_without_a_change(
    api_server: ApiServer, folder: Path
) -> None:
    if namespace := yaml.safe_load((folder / "kustomization.yaml").read_text()).get("namespace"):
        api_server.namespace(namespace)
    api_server.kubectl(*APPLY, "--kustomize", folder)
    first = versions(api_server, folder)
    api_server.kubectl(*APPLY, "--kustomize", folder)

    assert len(first) >= 4
    assert versions(api_server, folder) == first


@pytest.mark.parametrize("name", [name for name in guards.PROXIES if name != "nginx-ingress-controller"])
def test_a_component_that_guards_applies_strictly(api_server: ApiServer, name: str, tmp_path: Path) -> None:
    """F5's definitions are in no package; docs/proxies.md says what they were checked with."""
    api_server.namespace("other")
    folder = kustomize.write(tmp_path, ["network-policy", name])
    api_server.kubectl(*APPLY, "--kustomize", folder)
    kinds = {key.partition("/")[0] for key in versions(api_server, folder)}
    api_server.kubectl("delete", "--kustomize", folder)

    written = yaml.safe_load_all((K8S / "components" / name / "guard.yaml").read_text())
    assert {each["kind"] for each in written if each} - kinds <= {"ReferenceGrant"}


def test_a_misspelt_field_does_not_apply(api_server: ApiServer) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "misspelt": True}

    assert "field not declared in schema" in api_server.apply(account, check=False).stderr


@pytest.fixture
def pod(api_server: ApiServer) -> Any:
    """A Pod as the Deployment's controller would make it, in a restricted namespace."""
    restricted = api_server.namespace("restricted", **{"pod-security.kubernetes.io/enforce": "restricted"})
    metadata = {"name": "m2m-verifier", "namespace": restricted}
    spec = kustomize.pod_of(kustomize.build(OVERLAYS[-1]))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_pod_security_restricted_accepts_our_pod(api_server: ApiServer, pod: Any) -> None:
    assert api_server.try_to_create(pod) == ""


@pytest.mark.parametrize("field", ["allowPrivilegeEscalation", "capabilities"])
def test_pod_security_restricted_refuses_it_without_its_security_context(
    api_server: ApiServer, pod: Any, field: str
) -> None:
    weak = copy.deepcopy(pod)
    del weak["spec"]["containers"][0]["securityContext"][field]

    assert 'violates PodSecurity "restricted' in api_server.try_to_create(weak)


def test_the_readmes_helm_install_prints_the_annotations_and_an_upgrade_adds_everything(
    api_server: ApiServer, tmp_path: Path
) -> None:
    chart, option = K8S / "chart", f"--kubeconfig={api_server.kubeconfig}"
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(EVERYTHING))
    [written] = re.findall(r"^    helm install ((?:.*\\\n)+.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    name, _, *arguments = shlex.split(written.replace("\\\n", ""))
    installed = run(find("helm"), "install", name, chart, *arguments, option).stdout
    run(find("helm"), "upgrade", name, chart, "--namespace=auth", f"--values={values}", option)

    assert "auth-url: http://m2m-verifier.auth.svc.cluster.local:8000/verify/api\n" in installed
    assert "auth-response-headers: X-M2M-Client-ID, X-M2M-Scope, X-M2M-Role, X-M2M-Issuer\n" in installed
    kinds = "deployment,service,ingress,networkpolicy,hpa,pdb,servicemonitor,prometheusrule,issuer.cert-manager.io"
    objects = api_server.get(kinds, "--namespace=auth", "--selector=app.kubernetes.io/name=m2m-verifier")["items"]
    run(find("helm"), "uninstall", name, "--namespace=auth", option)  # other tests have Services of their own there
    assert len(objects) == 11


EVERYTHING = {
    "env": {"COGNITO_USER_POOL_ID": "us-east-1_Example"},
    "highAvailability": {"enabled": True},
    "ingress": {
        "enabled": True, "host": "api.example.com", "service": {"name": "api"}, "policy": "api",
        "metadata": True, "certManager": True,
    },
    "networkPolicy": {"enabled": True, "api": {"labels": {"app.kubernetes.io/name": "api"}}},
    "monitoring": {"enabled": True},
}  # fmt: skip
