"""What lint reads, and what it does with files that cannot be read."""

from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import ingress, lint, rules
from verifier.tools.lint import lint_files


@pytest.mark.parametrize("kind", ["List", "IngressList"])
def test_the_items_of_a_list_are_read(kind: str) -> None:
    items = [ingress(), ingress("bad", limit_rps=None), {"kind": "Pod"}]
    found = lint({"apiVersion": "v1", "kind": kind, "items": items})

    assert [(f.rule, f.object) for f in found] == [("no-rate-limit", "Ingress shop/bad")]


def test_other_kinds_and_empty_documents_are_ignored() -> None:
    others = "---\n---\nkind: Service\n---\n- a list\n---\njust text\n"

    assert rules(lint(others, ingress(limit_rps=None))) == ["no-rate-limit"]


UNREADABLE = {
    "bad YAML": b"a: [1, 2\nb: }",
    "a tab for an indent": b"a:\n\tb: 1",
    "an unknown tag": b"!!python/object:os.system x",
    "an impossible date": b"a: 2024-99-99",
    "not UTF-8": b"a: \xff\xfe",
    "a control character": b"a: \x00",
    "too deep": b"[" * 20_000,
    "annotations that are a list": b"{kind: Ingress, metadata: {name: x, annotations: [a]}}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_a_finding(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)

    [finding] = lint_files([path])

    assert (finding.rule, finding.file, bool(finding.why)) == ("unreadable", str(path), True)


def test_a_yaml_error_is_reported_with_its_line() -> None:
    [finding] = lint("kind: Ingress\nmetadata: {name: a\nspec: ]\n")

    assert (finding.line, finding.why) == (3, "expected ',' or '}', but got ':'")


@pytest.mark.parametrize(("name", "why"), [("missing.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_opened_is_a_finding(tmp_path: Path, name: str, why: str) -> None:
    [finding] = lint_files([tmp_path / name])

    assert (finding.rule, why in finding.why) == ("unreadable", True)


@pytest.mark.parametrize(
    "shape",
    [
        "kind: Ingress",
        "{kind: Ingress, metadata: [], spec: 3}",
        "{kind: Ingress, metadata: {name: x}, spec: {rules: [1, {http: {paths: [null]}}], tls: [x, {hosts: 3}]}}",
        "{kind: List, items: {a: b}}",
        "&a {kind: List, items: [*a]}",
        "{kind: Ingress, metadata: {name: {a: b}, annotations: {nginx.ingress.kubernetes.io/auth-url: [1]}}}",
        "{kind: Ingress, metadata: {annotations: {nginx.ingress.kubernetes.io/auth-url: 'http://['}}}",
    ],
)
def test_a_shape_that_kubernetes_would_refuse_is_no_traceback(shape: str) -> None:
    assert lint(shape) == []


def test_an_alias_bomb_is_read_without_being_expanded() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))

    assert lint(f"a0: &a0 [x]\n{levels}\nkind: Ingress\nmetadata: {{name: *a11, annotations: {{a: *a11}}}}\n") == []


def test_an_ingress_without_a_namespace_has_its_name_alone() -> None:
    manifest = ingress(limit_rps=None)
    del manifest["metadata"]["namespace"]

    assert [finding.object for finding in lint(yaml.safe_dump(manifest))] == ["Ingress api"]
