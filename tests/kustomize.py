"""Kustomizations that tests make: base and some components, with one block of params."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import yaml

K8S = Path(__file__).parents[1] / "k8s"
PARAMS = {"host": "other.example", "service": "other-service", "port": "81", "app": "other-app"}


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
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return folder
