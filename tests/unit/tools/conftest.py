from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import Lint, Manifest
from verifier.tools.lint import Finding, Known, lint_files


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    """Lint manifests, or text, as one file."""

    def run(*manifests: Manifest | str, known: Known | None = None) -> list[Finding]:
        path = tmp_path / "ingress.yaml"
        texts = [one if isinstance(one, str) else yaml.safe_dump(one) for one in manifests]
        path.write_text("---\n".join(texts))
        return lint_files([path], known)

    return run
