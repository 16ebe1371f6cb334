"""What a reader must know of the machine and the versions; no host name, no path, no address."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from bench.servers import ROOT
from bench.sides import envoy, nginx, others

PYTHON_PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "pyjwt", "cryptography", "fastapi")


def gather(build: Path, settings: Any) -> dict[str, str]:
    memory = int(_proc("meminfo", r"MemTotal:\s*(\d+)") or 0)
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], r"(\S+)"),
        "processor": _proc("cpuinfo", r"model name\s*:\s*(.+)"),
        "cores": f"{os.cpu_count()}, {'virtual' if 'hypervisor' in _flags() else 'real'}",
        "memory": f"{memory / 2**20:.0f} GiB",
        "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', platform.system())}, "
        f"Linux {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
    }
    for package in PYTHON_PACKAGES:
        facts[package] = _version(package)
    facts["nginx"] = _run([nginx.binary(), "-v"], r"nginx/(\S+)")
    facts["Envoy"] = _run([str(envoy.binary()), "--version"], r"/(\d+\.\d+\.\d+)")
    facts["Node"] = _run([str(others.node_binary()), "--version"], r"v(\S+)")
    for package in ("aws-jwt-verify", "fast-jwt"):
        manifest = build / "node" / "node_modules" / package / "package.json"
        facts[package] = str(json.loads(manifest.read_text())["version"])
    facts["wrk"] = _run(["wrk", "-v"], r"wrk \S*?(\d[\w.]*)")
    facts["the run"] = (
        f"{settings.rounds} rounds; windows of {settings.seconds} s over {settings.connections} connections, "
        f"{settings.fixed_seconds:g} s at a fixed rate"
    )
    return facts


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _run(argv: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return "not installed"
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"


def _proc(name: str, pattern: str) -> str:
    found = re.search(pattern, Path("/proc", name).read_text())
    return found.group(1).strip() if found else ""


def _flags() -> list[str]:
    return _proc("cpuinfo", r"flags\s*:\s*(.+)").split()
