"""The alerts for the Prometheus Operator: `python -m grafana.prometheusrule` wraps each file of alerts/ into an object.

Each object goes to the Kustomize component that makes Prometheus scrape what its rules watch.
"""

from __future__ import annotations

from pathlib import Path

import yaml

ALERTS = Path(__file__).parent / "alerts"
COMPONENTS = Path(__file__).parents[1] / "k8s" / "components"
TARGETS = {
    "m2m-verifier": COMPONENTS / "monitoring" / "prometheusrule.yaml",
    "m2m-verifier-canary": COMPONENTS / "canary" / "prometheusrule.yaml",
    "oauth2-proxy": COMPONENTS / "oauth2-proxy" / "prometheusrule.yaml",
}
"""The manifest of each file of rules, by the file's name."""


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def prometheusrule(name: str) -> str:
    """The text of one manifest."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}},
        "spec": yaml.safe_load((ALERTS / f"{name}.yaml").read_text()),
    }
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return f"# Made from grafana/alerts/{name}.yaml by `make manifests`; change it there.\n" + text


if __name__ == "__main__":
    for name, target in TARGETS.items():
        target.write_text(prometheusrule(name), encoding="utf-8")
