"""What a reader must know of the machine and the versions; no host name, no path, no address."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import plan
from bench.servers import ROOT
from bench.sides import envoy, nginx, others, ours
from bench.sides.context import Context

PYTHON_PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "pyjwt", "cryptography", "fastapi")


class Machine:
    """What the machine was doing besides: before the run, and taken away by its host during the run."""

    def __init__(self, sample: float = 2.0) -> None:
        began = _jiffies()
        time.sleep(sample)
        self._start = _jiffies()
        self.busy_before = 1 - _share(began, self._start, *IDLE)

    def stolen(self) -> float:
        """The share of the time since then that the host gave to others."""
        return _share(self._start, _jiffies(), STEAL)


IDLE, STEAL = (3, 4), 7  # columns of /proc/stat: idle and iowait, steal


def _jiffies() -> list[int]:
    return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def _share(before: list[int], after: list[int], *columns: int) -> float:
    passed = [late - early for early, late in zip(before, after, strict=True)]
    return sum(passed[column] for column in columns) / max(sum(passed), 1)


def gather(context: Context, settings: Any, machine: Machine) -> dict[str, str]:
    memory = int(_proc("meminfo", r"MemTotal:\s*(\d+)") or 0)
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(ROOT),
        **({"commit before": _commit(ours.code_of(context.before))} if context.before else {}),
        "processor": _proc("cpuinfo", r"model name\s*:\s*(.+)"),
        "cores": f"{os.cpu_count()}, {'virtual' if 'hypervisor' in _flags() else 'real'}",
        "memory": f"{memory / 2**20:.0f} GiB",
        "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', platform.system())}, "
        f"Linux {platform.release().split('-')[0]}",
    }
    facts["besides"] = f"{machine.busy_before:.0%} busy before the run; {machine.stolen():.1%} taken by the host in it"
    whose = "the system's" if sys.base_prefix == "/usr" else "not the system's"
    facts["Python"] = f"{platform.python_version()}, {whose}"
    for package in PYTHON_PACKAGES:
        facts[package] = _version(package)
    facts["nginx"] = _run([nginx.binary(), "-v"], r"nginx/(\S+)")
    facts["Envoy"] = _run([str(envoy.binary()), "--version"], r"/(\d+\.\d+\.\d+)")
    facts["Node"] = _run([str(others.node_binary()), "--version"], r"v(\S+)")
    for package in ("aws-jwt-verify", "fast-jwt"):
        manifest = context.build / "node" / "node_modules" / package / "package.json"
        facts[package] = str(json.loads(manifest.read_text())["version"])
    facts["wrk"] = _run(["wrk", "-v"], r"wrk \S*?(\d[\w.]*)")
    facts["the run"] = (
        f"{settings.rounds} rounds; windows of {settings.seconds} s over {plan.CONNECTIONS} connections, "
        f"{settings.fixed_seconds:g} s at a fixed rate"
    )
    return facts


def _commit(folder: Path) -> str:
    return _run(["git", "-C", str(folder), "describe", "--always", "--dirty"], r"(\S+)")


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
