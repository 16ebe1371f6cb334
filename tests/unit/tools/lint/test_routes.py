"""What lint says about Ingresses together: routes around a guard, and documents behind one."""

from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import METADATA, VERIFY, Manifest, N, ingress, lint, rules, unguarded
from verifier.tools.lint import Known, lint_files

BROWSERS = ingress("web", host="www.example.com", auth_url="http://oauth2-proxy.auth.svc/oauth2/auth")

DEFAULT = {"spec": {"defaultBackend": {"service": {"name": "api", "port": {"number": 80}}}}}

# The rule, Ingresses that have the trap, and some that are close to it and have not.
# fmt: off
TRAPS: dict[str, tuple[str, list[Manifest], list[Manifest]]] = {
    "another path of the host without auth-url": (
        "unprotected", [ingress(), unguarded(paths=("/internal",), service="other")],
        [ingress(), unguarded(paths=(METADATA,), service="m2m-verifier")],
    ),
    "the whole host again, without auth-url": (
        "unprotected", [unguarded(service="other"), ingress(paths=("/api",))],
        [ingress(), unguarded(host="www.example.com", service="other")],
    ),
    "a path of the default host without auth-url": (
        "unprotected", [ingress(host=None), unguarded(host=None, paths=("/x",), service="other")],
        [ingress(host=None), unguarded(host="www.example.com", service="other")],
    ),
    "a host under a guarded wildcard without auth-url": (
        "unprotected", [ingress(host="*.example.com"), unguarded(host="db.example.com", service="other")],
        [ingress(host="*.example.com"), unguarded(host="db.eu.example.com", service="other")],
    ),
    "the guarded API under another name without auth-url": (
        "unprotected", [ingress(), unguarded(host="legacy.example.com")],
        [ingress(), unguarded(host="legacy.example.com", auth_type="basic", service="legacy")],
    ),
    "the guarded API as a default backend": (
        "unprotected", [ingress(), unguarded() | DEFAULT], [ingress(), BROWSERS],
    ),
    "the protected-resource document behind auth": (
        "metadata-behind-auth", [ingress(paths=("/", METADATA + "/mcp"))],
        [ingress(paths=("/",)), unguarded(paths=(METADATA,))],
    ),
    "the controller's own guard off on a path of the host": (
        "global-auth-off", [ingress(), unguarded(paths=("/x",), enable_global_auth="false")],
        [ingress(), unguarded(paths=(METADATA,), enable_global_auth="false")],
    ),
    "a second Ingress that is no canary": (
        "unprotected", [ingress(), unguarded(canary="false", service="next")],
        [ingress(), unguarded(canary="true", service="next")],
    ),
}
# fmt: on


@pytest.mark.parametrize(("rule", "trapped", "harmless"), TRAPS.values(), ids=TRAPS)
def test_a_trap_is_found_and_what_is_close_to_it_is_not(
    rule: str, trapped: list[Manifest], harmless: list[Manifest]
) -> None:
    assert (rule in rules(lint(*trapped)), lint(*harmless)) == (True, [])


def test_a_policy_with_a_resource_needs_a_public_path_to_its_document() -> None:
    known = Known(resources=frozenset({"api"}))

    assert rules(lint(ingress(), known=known)) == ["metadata-behind-auth"]
    assert lint(ingress(), unguarded(paths=(METADATA,)), known=known) == []
    assert lint(ingress(paths=("/api",)), known=known) == []


def test_an_unprotected_route_in_another_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(ingress()))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(unguarded()))

    [finding] = lint_files([tmp_path / "a.yaml", tmp_path / "b.yaml"])

    assert (finding.rule, finding.file, finding.object) == ("unprotected", f"{tmp_path}/b.yaml", "Ingress shop/open")
    assert finding.write == f'{N}auth-url: "{VERIFY}"'
