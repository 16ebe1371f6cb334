"""The steps of docs/moving.md as text, and the user's kustomization after some of them."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from tests.kustomize import write
from tests.ops.pages import DOCS

PAGE = DOCS["moving"]
VALUES, POLICY, ADDED, CERTIFICATE, LAST, ANNOTATIONS = PAGE.blocks("yaml")
OLD = ["ingress-nginx", "resource-metadata"]
COMMANDS = [shlex.split(line) for block in PAGE.blocks("") for line in block.splitlines()]
DELETES = [words for words in COMMANDS if words[:4] == ["kubectl", "-n", "api", "delete"]]


def overlay(folder: Path, step: int, *more: str) -> Path:
    """The kustomization after a step, with further components before the others."""
    added, last = yaml.safe_load(ADDED), yaml.safe_load(LAST)
    folder.mkdir(exist_ok=True)
    (folder / "certificate.yaml").write_text(CERTIFICATE)
    new = [Path(name).name for name in added["components"]]
    components = [*more, *(OLD if step < 8 else []), *(new if step >= 3 else [])]
    patches = (last if step >= 8 else added)["patches"]
    further = {"resources": added["resources"], "patches": patches} if step >= 3 else {}
    return write(folder, components, "api", **further)
