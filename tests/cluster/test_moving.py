"""The walk of docs/moving.md: ingress-nginx's rendered nginx and a real Traefik, with one verifier and one API server.

No kubelet runs, so the pods' addresses and DNS names become those of this machine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests import kustomize
from tests.cluster.server import TOKEN, ApiServer
from tests.cluster.test_traefik import TRAEFIK, service
from tests.e2e.stage import Serve, configuration, entry, eventually, exchange, free_port, request
from tests.kustomize import PARAMS
from tests.ops.moving import ANNOTATIONS, COMMANDS, DELETES, POLICY, VALUES, overlay
from tests.programs import m2m_verifier, running
from tests.proxies.render_nginx import ingress_nginx
from tests.proxies.where import Where
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background

pytestmark = pytest.mark.skipif(not TRAEFIK.exists(), reason="`make proxies` installs Traefik")
NGINX = "k8s.io/ingress-nginx"
NAME = "m2m-verifier.api.svc.cluster.local:8000"
[APPLY] = {tuple(words) for words in COMMANDS if words[-1] == "my-overlay"}


class Walk:
    """What runs on both sides, and the user's commands."""

    def __init__(self, server: ApiServer, serve: Serve, issuer: Issuer, api: str, folder: Path) -> None:
        self.server, self.serve, self.issuer, self.folder = server, serve, issuer, folder
        self.old, self.new, self._api = free_port(), free_port(), api
        self._port = int(api.rpartition(":")[2])  # Traefik reads no targetPort where a Service has an external name
        server.namespace("api")
        server.apply(service(PARAMS["service"], "api", self._port, api))

    def apply(self, step: int) -> None:
        """The page's command, with the overlay after a step; then the verifier's name becomes its address."""
        file = overlay(self.folder, step) / "kustomization.yaml"
        file.write_text(file.read_text().replace(f"port={PARAMS['port']}", f"port={self._port}"))
        self.server.kubectl(*APPLY[1:-1], self.folder, "--force-conflicts")
        if step >= 3:
            address = self.server.get("middleware/api-m2m", "-n", "api")["spec"]["forwardAuth"]["address"]
            patch = {"spec": {"forwardAuth": {"address": address.replace(NAME, self.serve.address)}}}
            self.server.kubectl("-n", "api", "patch", "middleware/api-m2m", "--type=merge", f"-p={json.dumps(patch)}")

    def configure(self, api_moving: str) -> None:
        """Replace the policies, `api-moving` by its line of the page."""
        policies = POLICY.replace("{<<: *api, mode: report}", api_moving)
        self.serve.write(yaml.safe_dump(configuration(entry(self.issuer), audit="all")) + policies)

    def nginx(self) -> list[str]:
        """ingress-nginx with the Ingress that the API server has."""
        found = self.server.get("ingress/m2m-api", "-n", "api")
        where = Where(self.folder, self.old, free_port(), self.serve.address, self._api)
        return ingress_nginx(yaml.safe_dump(found), where)

    def traefik(self) -> list[str]:
        """Traefik with the arguments of the page's values."""
        [argument] = yaml.safe_load(VALUES)["additionalArguments"]
        provider = "--providers.kubernetesCRD"
        return [
            str(TRAEFIK), f"--entryPoints.websecure.address=127.0.0.1:{self.new}", argument,
            "--entryPoints.websecure.http.tls=true", "--global.checkNewVersion=false",
            f"{provider}.endpoint={self.server.url}", f"{provider}.token={TOKEN}",
            f"{provider}.certAuthFilePath={self.server.ca}", f"{provider}.allowExternalNameServices=true",
        ]  # fmt: skip

    def through_traefik(self, scope: str = "", **headers: str) -> httpx.Response:
        """One request over TLS; without a scope it has no token."""
        headers |= {"Host": PARAMS["host"]} | ({"Authorization": f"Bearer {self.token(scope)}"} if scope else {})
        with httpx.Client(verify=False, trust_env=False, timeout=60) as client:
            url = f"https://127.0.0.1:{self.new}/orders"
            return client.get(url, headers=headers, extensions={"sni_hostname": PARAMS["host"]})

    def through_nginx(self, scope: str = "") -> int:
        token = self.token(scope) if scope else None
        return exchange(self.old, request("/orders", "Connection: close", token=token)).status

    def token(self, scope: str) -> str:
        return self.issuer.mint(self.issuer.machine_claims("etl", (scope,)))

    def decided(self) -> list[tuple[str, str]]:
        """Policy and reason of each line of the audit log."""
        lines = [json.loads(line) for line in list(self.serve.output)]
        return [(line["policy"], line["reason"]) for line in lines]

    def report(self) -> Any:
        """What `report` finds in the lines of the second name."""
        lines = b"".join(line for line in list(self.serve.output) if b'"policy":"api-moving"' in line)
        options = f"--config={self.serve.config}", "--format=json"
        return json.loads(m2m_verifier("report", "-", *options, input=lines.decode())[1])


@pytest.fixture
def walk(api_server: ApiServer, api: Background, lab: Issuer, tmp_path: Path) -> Iterator[Walk]:
    start: dict[str, Any] = configuration(entry(lab), audit="all") | {"policies": {"api": {}}}
    with Serve(start, tmp_path) as serve:
        yield Walk(api_server, serve, lab, api.address, tmp_path)


def test_the_walk_keeps_the_old_way_as_it_is_and_opens_nothing(walk: Walk, tmp_path: Path) -> None:
    walk.configure("{<<: *api, mode: report}")
    walk.apply(3)
    with running(walk.nginx(), tmp_path / "nginx.log"), running(walk.traefik(), tmp_path / "traefik.log"):
        # 4: report mode lets everyone through Traefik, and only through Traefik; forged identity does not arrive.
        answer = eventually(lambda: is_200(walk, **{"X-M2M-Role": "forged"}), "Traefik lets all through")
        seen = {value for name, value in answer.json()["headers"] if name.startswith("x-m2m-")}
        assert seen == {""}
        assert walk.through_traefik("read").json()["headers"].count(["x-m2m-client-id", "etl"]) == 1
        assert [walk.through_nginx(), walk.through_nginx("read")] == [401, 200]
        assert walk.through_traefik().status_code == 200
        eventually(lambda: ("api-moving", "missing_token") in walk.decided(), "the audit log has what would be refused")
        assert walk.report()["clients"][0]["would_deny"].keys() == {"missing_token"}

        # 5: the same policy in force.
        walk.configure("*api")
        refused = eventually(lambda: [a for a in [walk.through_traefik()] if a.status_code == 401], "it is in force")
        assert refused[0].json()["reason"] == "missing_token"
        assert [walk.through_traefik("read").status_code, walk.through_traefik("other").status_code] == [200, 403]
        assert [walk.through_nginx(), walk.through_nginx("read"), walk.through_nginx("other")] == [401, 200, 403]

        # 7: back. Traefik has no route then, and nginx the Ingress it had.
        walk.server.kubectl(*DELETES[0][1:])
        eventually(lambda: walk.through_traefik("read").status_code == 404, "Traefik has no route")
        assert walk.through_nginx("read") == 200

        # 8: without ingress-nginx, Traefik asks for the policy by its own name.
        walk.apply(8)
        walk.server.kubectl(*DELETES[1][1:])
        eventually(lambda: walk.through_traefik("read").status_code == 200, "Traefik has its route again")
        assert walk.through_traefik().status_code == 401
        eventually(lambda: walk.decided()[-1] == ("api", "missing_token"), "Traefik asks for the policy's own name")
    assert walk.server.get("ingress", "-n", "api")["items"] == []


def is_200(walk: Walk, **headers: str) -> httpx.Response | None:
    with contextlib.suppress(httpx.TransportError):
        answer = walk.through_traefik(**headers)
        return answer if answer.status_code == 200 else None
    return None


@pytest.mark.parametrize(("is_set", "served"), [(True, "other.example"), (False, "old.example")])
def test_with_the_controller_of_its_component_traefik_leaves_the_ingresses_of_ingress_nginx_alone(
    api_server: ApiServer, tmp_path: Path, is_set: bool, served: str
) -> None:
    provider = yaml.safe_load(ANNOTATIONS)["providers"]["kubernetesIngressNGINX"]
    folder = kustomize.write(tmp_path, ["ingress-nginx", "traefik-ingress-nginx"], api_server.namespace("other"))
    objects = {each["metadata"]["name"]: each for each in kustomize.build(folder) if "Ingress" in each["kind"]}
    objects["m2m-api"]["spec"]["rules"][0]["host"] = "old.example"
    objects["nginx"] = {**objects["traefik-nginx"], "metadata": {"name": "nginx"}, "spec": {"controller": NGINX}}
    for each in objects.values():
        each["spec"].pop("tls", None)
    api_server.apply(*objects.values())
    port, option = free_port(), "--providers.kubernetesIngressNGINX"
    command = [
        str(TRAEFIK), f"--entryPoints.web.address=127.0.0.1:{port}", "--global.checkNewVersion=false",
        f"{option}.httpEntryPoint=web", f"{option}.endpoint={api_server.url}", f"{option}.token={TOKEN}",
        f"{option}.certAuthFilePath={api_server.ca}",
    ]  # fmt: skip
    command += [f"{option}.controllerClass={provider['controllerClass']}"] if is_set else []

    def hosts() -> set[str]:
        with contextlib.suppress(httpx.TransportError), httpx.Client(trust_env=False, timeout=60) as client:
            found = ("other.example", "old.example")
            asked = {host: client.get(f"http://127.0.0.1:{port}/", headers={"Host": host}) for host in found}
            return {host for host, answer in asked.items() if answer.status_code != 404}
        return set()

    with running(command, tmp_path / "traefik.log"):
        assert eventually(hosts, "Traefik knows an Ingress") == {served}
    api_server.kubectl("delete", "ingress", "--all", "--namespace=other")
