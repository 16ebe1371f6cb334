"""The files of every example fit each other and the program."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.e2e.stage import children, eventually
from tests.examples.conftest import ROOT
from verifier.config import Config
from verifier.config.load import load
from verifier.tools import guard, lint

FOLDERS = sorted(path.parent for path in (ROOT / "examples").glob("*/README.md"))
MANIFESTS = sorted((ROOT / "examples").glob("*/kubernetes.yaml"))
INDEX = ROOT / "examples" / "README.md"
KEY = {"kty": "oct", "kid": "1", "k": "A" * 43}
any_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
any_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)


def configuration(folder: Path, scratch: Path) -> Config:
    """The example's, with a key for each key file: those are secrets, which no example contains."""
    copied = Path(shutil.copy(folder / "verifier.yaml", scratch))
    for issuer in yaml.safe_load(copied.read_text())["issuers"]:
        if "jwks_file" in issuer:
            (scratch / issuer["jwks_file"]).write_text(json.dumps({"keys": [KEY]}))
    return load(copied)


@any_folder
def test_the_configuration_is_accepted_without_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configuration(folder, tmp_path)
    assert caplog.text == ""


@any_folder
def test_the_nginx_configuration_contains_every_line_that_guard_prints(folder: Path, tmp_path: Path) -> None:
    used = (folder / "nginx.conf").read_text()
    [policy] = set(re.findall(r"/verify/([\w.-]+)", used))
    printed = io.StringIO()
    guard.main("nginx", policy, configuration(folder, tmp_path), printed)
    lines = iter(used.splitlines())
    assert [line for line in printed.getvalue().splitlines() if line not in lines] == []  # in this order


@any_manifest
def test_lint_finds_nothing_in_the_manifests(manifest: Path, tmp_path: Path) -> None:
    found = lint.lint_files([manifest], lint.Known.of(configuration(manifest.parent, tmp_path)))
    # Its configuration is for nginx.conf; the manifest and the README say what ingress-nginx needs.
    allowed = ["lost-challenge"] if manifest.parent.name == "mcp" else []
    assert [finding.rule for finding in found] == allowed


@any_manifest
def test_the_manifests_guard_an_ingress_and_fit_the_schemas_of_kubernetes(manifest: Path) -> None:
    objects = list(yaml.safe_load_all(manifest.read_text()))
    for one in objects:
        kubernetes_validate.validate(one, "1.37", strict=True)
    assert any("/verify/" in json.dumps(one) for one in objects if one["kind"] == "Ingress")


@any_folder
def test_the_index_names_the_command_and_the_test(folder: Path) -> None:
    [row] = re.findall(rf"^\| \[{folder.name}\].*$", INDEX.read_text(), re.MULTILINE)
    test = f"tests/examples/test_{folder.name.replace('-', '_')}.py"
    assert (f"`make example-{folder.name}`" in row, f"`{test}`" in row, (ROOT / test).is_file()) == (True, True, True)


def test_each_row_of_a_plan_quotes_a_step_or_test_of_the_example_that_it_names() -> None:
    rows = re.findall(r"^\| (.+) \| (\w[\w-]*): “(.+)” \|$", INDEX.read_text(), re.MULTILINE)
    assert rows
    for row, name, quoted in rows:
        sources = [ROOT / "examples" / name / "__main__.py", ROOT / f"tests/examples/test_{name.replace('-', '_')}.py"]
        assert any(quoted in path.read_text() for path in sources), row


@pytest.mark.timeout(600)
def test_an_example_that_is_stopped_leaves_no_process_behind() -> None:
    command = [sys.executable, "-u", "-m", "examples.lake-query"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as example:
        assert example.stdout
        assert example.stdout.readline()
        started = children(example.pid)
        example.send_signal(signal.SIGTERM)
        example.stdout.read()
    assert (example.returncode, len(started)) == (130, 3)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "they have ended")
