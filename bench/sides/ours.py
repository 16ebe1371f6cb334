"""Ours, as a person runs it: `m2m-verifier serve` with a configuration file, all checks, metrics and audit on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.servers import BenchError, ServerSpec
from bench.sides.context import CACHE_SIZE, PYTHON_BIN, Context
from bench.tokens import REGION, SCOPE_PREFIX, USER_POOL_ID

COMMAND = PYTHON_BIN / "m2m-verifier"

# `default` asks for what every other side checks too; `rules` shows what path rules cost on top.
POLICIES: dict[str, Any] = {
    "default": {"scope": ["read"]},
    "rules": {
        "scope": ["read"],
        "rules": [
            {"path": "/db/**", "methods": ["GET", "HEAD"]},
            {"path": "/db/**", "methods": ["POST", "PUT", "PATCH", "DELETE"], "scope": ["write"]},
            {"path": "/admin/**", "any_scope": ["admin", "root"]},
            {"path": "/orders/*", "methods": ["GET", "POST"]},
        ],
    },
}


def command_of(before: Path) -> Path:
    """The command of an older version: `before` is its checkout or its virtual environment.

    Raises BenchError where there is none, or where it runs the same code as ours.
    """
    places = [before.absolute() / folder / COMMAND.name for folder in ("build/bench/venv/bin", ".venv/bin", "bin")]
    command = next((place for place in places if place.is_file()), None)
    if command is None:
        raise BenchError(f"{before} has no {COMMAND.name}: `make bench BENCH=--help` there installs it")
    if code_of(command) == code_of(COMMAND):
        raise BenchError(f"{command} runs the code of this checkout, {code_of(command)}")
    return command


def code_of(command: Path) -> Path:
    """The folder of the package that a command imports; raises BenchError where it imports none."""
    argv = [str(command.with_name("python")), "-P", "-c", "import verifier; print(verifier.__path__[0])"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BenchError(f"{command} does not run: {done.stderr[-2000:]}")
    return Path(done.stdout.strip()).resolve()


def configuration(context: Context, **changes: Any) -> dict[str, Any]:
    return {
        "issuers": [
            {
                "name": "homelab",
                "cognito": {"region": REGION, "user_pool_id": USER_POOL_ID},
                "jwks_url": context.jwks_url,
                "algorithms": ["RS256", "ES256"],
            }
        ],
        "scope_prefix": SCOPE_PREFIX,
        "policies": POLICIES,
        "cache": {"size": CACHE_SIZE, "ttl": 3600},
        "audit": "all",
    } | changes


def config_path(context: Context, name: str) -> Path:
    return context.folder("config") / f"{name}.yaml"


def write_config(context: Context, name: str, **changes: Any) -> Path:
    path = config_path(context, name)
    path.write_text(json.dumps(configuration(context, **changes), indent=1))  # JSON is YAML
    return path


def guard(context: Context, proxy: str) -> str:
    """What a team pastes into a proxy's configuration to have ours asked."""
    argv = [str(COMMAND), "guard", "--proxy", proxy, "--policy", "default"]
    argv += ["--config", str(write_config(context, f"guard-{proxy}"))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BenchError(f"guard prints no block for {proxy}: {done.stderr[-2000:]}")
    return done.stdout


def spec(
    context: Context, name: str = "ours", *, command: Path | None = None, uds: Path | None = None, **changes: Any
) -> ServerSpec:
    """One process of ours, its port and metrics port named after it; `command` is another version's."""
    config = write_config(context, name, **changes)
    port, metrics = context.ports[name], context.ports[f"{name}-metrics"]
    if uds:
        uds.unlink(missing_ok=True)  # a run that was killed leaves it behind
    where = ["--uds", str(uds)] if uds else ["--host", "127.0.0.1", "--port", str(port)]
    return ServerSpec(
        name=name,
        argv=[str(command or COMMAND), "serve", "--config", str(config), *where, "--metrics-port", str(metrics)],
        ready=(metrics, "/metrics") if uds else (port, "/ready"),
        drain_stdout=True,
        env={"PYTHONSAFEPATH": "1"},  # an older version may start a child that would import from the working directory
    )
