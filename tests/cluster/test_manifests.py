"""A real API server accepts every kustomization and the chart, and applying them again changes nothing."""

from __future__ import annotations

import copy
import functools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.server import APPLY, ApiServer

ROOT = Path(__file__).parents[2]
FOLDERS = [
    ROOT / "k8s" / "base",
    *sorted((ROOT / "k8s" / "overlays").iterdir()),
    ROOT / "examples" / "minimal",
    ROOT / "tests" / "ops" / "oauth2-proxy",
    ROOT / "tests" / "ops" / "canary",
]


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


def test_a_misspelt_field_does_not_apply(api_server: ApiServer) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "misspelt": True}

    assert "field not declared in schema" in api_server.apply(account, check=False).stderr


@pytest.fixture(scope="session")
def restricted(api_server: ApiServer) -> str:
    return api_server.namespace("restricted", **{"pod-security.kubernetes.io/enforce": "restricted"})


@pytest.fixture
def pod(api_server: ApiServer, restricted: str) -> Any:
    """A Pod as the Deployment's controller would make it."""
    objects = api_server.build(ROOT / "k8s" / "overlays" / "production")
    [deployment] = [each for each in objects if each["kind"] == "Deployment"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "m2m-verifier", "namespace": restricted},
        "spec": deployment["spec"]["template"]["spec"],
    }


def create(server: ApiServer, pod: Any) -> subprocess.CompletedProcess[str]:
    arguments = ("create", "--dry-run=server", "--validate=strict", "--filename=-")
    return server.kubectl(*arguments, stdin=yaml.safe_dump(pod), check=False)


def test_pod_security_restricted_accepts_our_pod(api_server: ApiServer, pod: Any) -> None:
    assert create(api_server, pod).stderr == ""


@pytest.mark.parametrize("field", ["allowPrivilegeEscalation", "capabilities"])
def test_pod_security_restricted_refuses_it_without_its_security_context(
    api_server: ApiServer, pod: Any, field: str
) -> None:
    weak = copy.deepcopy(pod)
    del weak["spec"]["containers"][0]["securityContext"][field]

    assert 'violates PodSecurity "restricted' in create(api_server, weak).stderr


def test_the_readmes_helm_install_prints_the_annotations_and_an_upgrade_adds_everything(
    api_server: ApiServer, helm: str, tmp_path: Path
) -> None:
    chart, options = str(ROOT / "k8s" / "chart"), [f"--kubeconfig={api_server.kubeconfig}"]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(EVERYTHING))
    [written] = re.findall(r"^    helm install ((?:.*\\\n)+.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    name, _, *arguments = shlex.split(written.replace("\\\n", ""))
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=300, check=False)
    installed = run([helm, "install", name, chart, *arguments, *options])
    upgraded = run([helm, "upgrade", name, chart, "--namespace=auth", f"--values={values}", *options])

    assert (installed.returncode, upgraded.returncode) == (0, 0), installed.stderr + upgraded.stderr
    assert "auth-url: http://m2m-verifier.auth.svc.cluster.local:8000/verify/api\n" in installed.stdout
    assert "auth-response-headers: X-M2M-Client-ID, X-M2M-Scope, X-M2M-Role, X-M2M-Issuer\n" in installed.stdout
    kinds = "deployment,service,ingress,networkpolicy,hpa,pdb,servicemonitor,prometheusrule,issuer.cert-manager.io"
    objects = api_server.get(kinds, "--namespace=auth", "--selector=app.kubernetes.io/name=m2m-verifier")["items"]
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
