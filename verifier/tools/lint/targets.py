"""What policies for the Gateway API refer to: their targets, and Services of other namespaces."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.tools.lint.guards import Guard
from verifier.tools.lint.manifests import Finding, Manifests, Object, Place, text

GROUP = "gateway.networking.k8s.io"

Targets = dict[tuple[str, str, str], tuple[Guard | None, bool]]
"""By kind, namespace/name and section of the target: its guard, and whether anything decides about its requests."""


def named(one: Object, ref: Place, with_port: bool = False) -> str:
    """The namespace/name, and port, that a reference leads to."""
    namespace = one.text(*ref, "namespace") or one.namespace
    port = f":{one.text(*ref, 'port')}" if with_port else ""
    return f"{namespace}/{one.text(*ref, 'name')}{port}".removeprefix("/")


def targets_of(policy: Object, manifests: Manifests) -> Iterator[tuple[str, str, str]]:
    """What a policy is attached to, by name or by labels. A target lies in the policy's namespace."""
    for ref in (*policy.each("spec", "targetRefs"), ("spec", "targetRef")):
        if policy.text(*ref, "name"):
            yield policy.text(*ref, "kind"), named(policy, ref), policy.text(*ref, "sectionName")
    for selector in policy.each("spec", "targetSelectors"):
        labels = policy.at(*selector, "matchLabels")
        for one in manifests.of(GROUP, policy.text(*selector, "kind")):
            own = one.at("metadata", "labels")
            fits = isinstance(labels, dict) and isinstance(own, dict)
            fits = fits and all(text(own.get(key)) == text(value) for key, value in labels.items())
            if fits and one.namespace == policy.namespace:
                yield one.kind, one.label, ""


def no_grant(one: Object, backend: Place, manifests: Manifests) -> Iterator[Finding]:
    """A finding where no ReferenceGrant lets an object use the verifier's Service in another namespace."""
    namespace, name = one.text(*backend, "namespace"), one.text(*backend, "name")
    if namespace in ("", one.namespace):
        return
    for grant in manifests.of(GROUP, "ReferenceGrant"):
        froms, tos = list(grant.each("spec", "from")), list(grant.each("spec", "to"))
        if (
            grant.namespace == namespace
            # An object without a namespace gets one when it is applied.
            and any(
                grant.text(*item, "kind") == one.kind and one.namespace in ("", grant.text(*item, "namespace"))
                for item in froms
            )
            and any(grant.text(*item, "kind") == "Service" and grant.text(*item, "name") in ("", name) for item in tos)
        ):
            return
    why = f"no ReferenceGrant in these files lets this {one.kind} use a Service of {namespace}: some controllers then"
    why += " let requests through without asking"
    write = f"a ReferenceGrant in {namespace} from {one.kind} to the Service {name}"
    yield one.finding("no-reference-grant", backend, why, write)
