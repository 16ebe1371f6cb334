"""What kustomizations make: those of the repository, and those that tests make of base and some components."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.programs import ROOT, find, run

Manifest = dict[str, Any]

K8S = ROOT / "k8s"
OVERLAYS = sorted((K8S / "overlays").iterdir())
MINIMAL = ROOT / "examples" / "minimal"
OAUTH2_PROXY, CANARY = ROOT / "tests" / "ops" / "oauth2-proxy", ROOT / "tests" / "ops" / "canary"
FOLDERS = [K8S / "base", *OVERLAYS, MINIMAL, OAUTH2_PROXY, CANARY]
PARAMS = {"host": "other.example", "service": "other-service", "port": "81", "app": "other-app"}


@functools.cache
def build(folder: Path) -> list[Manifest]:
    """The objects of a kustomization, which other tests share."""
    program = find("kubectl", "kustomize")
    verb = "kustomize" if Path(program).name == "kubectl" else "build"
    return list(yaml.safe_load_all(run(program, verb, folder).stdout))


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    """The objects of one kind."""
    return [each for each in objects if each["kind"] == kind]


def named(objects: list[Manifest], kind: str, name: str = "m2m-verifier") -> Manifest:
    """The one object of a kind and a name."""
    [found] = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pod_of(objects: list[Manifest], name: str = "m2m-verifier") -> Any:
    """The specification of a Deployment's pods, which have one container."""
    pod = named(objects, "Deployment", name)["spec"]["template"]["spec"]
    assert len(pod["containers"]) == 1
    return pod


def write(folder: Path, components: Iterable[str], namespace: str = "other", **more: list[object]) -> Path:
    """Write a kustomization into a folder; the folder. What `more` adds comes after what there is."""

    def path(name: str) -> str:
        return os.path.relpath(K8S / name, folder.resolve())

    written = {
        "namespace": namespace,
        "configMapGenerator": [{"name": "params", "literals": [f"{key}={PARAMS[key]}" for key in PARAMS]}],
        "resources": [path("base"), *more.pop("resources", [])],
        "components": [path(f"components/{name}") for name in components],
        "transformers": [path("params")],
        **more,
    }
    folder.mkdir(exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return folder
