"""The alerts for the Prometheus Operator: `python -m grafana.prometheusrule` wraps alerts/*.yaml into one object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TARGET = HERE.parent / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def prometheusrule() -> str:
    """The manifest's text."""
    rules: list[dict[str, Any]] = [
        yaml.safe_load(path.read_text()) for path in sorted((HERE / "alerts").glob("*.yaml"))
    ]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "m2m-verifier", "labels": {"app.kubernetes.io/name": "m2m-verifier"}},
        "spec": {"groups": [group for file in rules for group in file["groups"]]},
    }
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return "# Made from grafana/alerts/ by `make manifests`; change it there.\n" + text


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(prometheusrule(), encoding="utf-8")
