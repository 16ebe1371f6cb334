"""`make audit`: lists the image's Python packages in build/sbom.json and looks up their known vulnerabilities.

Exits with status 1 if a package has one, and if the database could not be asked: then nothing is known, which is not
the same as no vulnerability. `--unreachable-is-ok` makes the second case a message alone.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LOCK = ROOT / "requirements.lock"


def verdict(dependencies: list[dict[str, Any]], unreachable_is_ok: bool) -> tuple[int, str]:
    """Exit status and message for pip-audit's list, which is empty if it printed none."""
    bad = {one["name"]: [found["id"] for found in one["vulns"]] for one in dependencies if one.get("vulns")}
    unknown = [one["name"] for one in dependencies if "vulns" not in one or "skip_reason" in one]
    if bad:
        return 1, f"known vulnerabilities: {bad}"
    if unknown or not dependencies:
        named = "any package" if len(unknown) == len(dependencies) else ", ".join(unknown)
        return int(not unreachable_is_ok), f"NOT AUDITED: the database of vulnerabilities said nothing about {named}"
    return 0, f"none of {len(dependencies)} packages has a known vulnerability"


def main() -> int:
    """Write the list, print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unreachable-is-ok", action="store_true")
    given = parser.parse_args()
    sbom = ROOT / "build" / "sbom.json"
    sbom.parent.mkdir(exist_ok=True)
    source = ["requirements", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible"]
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}  # a lock has no graph of dependencies, which the tool says twice
    subprocess.run([BIN / "cyclonedx-py", *source, "--output-file", sbom, LOCK], check=True, env=quiet)
    print(f"{sbom.relative_to(ROOT)}: {len(json.loads(sbom.read_text())['components'])} packages")

    audit = [BIN / "pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json"]
    done = subprocess.run([*audit, "--requirement", LOCK], capture_output=True, text=True, check=False)
    dependencies = json.loads(done.stdout)["dependencies"] if done.stdout.startswith("{") else []
    status, message = verdict(dependencies, given.unreachable_is_ok)
    print(message)
    if not dependencies:
        print("\n".join(done.stderr.splitlines()[-3:]))
    return status


if __name__ == "__main__":
    sys.exit(main())
