"""What is measured against what: targets, loads, cells, and the comparisons that the table shows."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 32
API_PATH = "/orders/7?expand=items"


@dataclass(frozen=True)
class Target:
    """One way to ask one side. `servers` are the processes whose CPU and memory count, the verifier first.

    `port` names the port that is asked; `verifier` is the process with the cache, whose position in a cycle of fresh
    tokens continues from window to window. `proxied`: the answer is the API's, through a proxy.
    """

    name: str
    title: str
    servers: tuple[str, ...]
    port: str
    path: str = "/verify"
    proxied: bool = False
    verifies: bool = True
    checks_scope: bool = True

    @property
    def verifier(self) -> str:
        return self.servers[0]


def _front(verifier: str, title: str, how: str, port: str, *, verifies: bool = True) -> Target:
    return Target(port, f"nginx + {title}, {how}", (verifier, "nginx-front"), port, proxied=True, verifies=verifies)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("ours", "ours", ("ours",), "ours"),
        Target("ours-before", "ours, before", ("ours-before",), "ours-before"),  # with `--before` alone
        Target("ours-audit-off", "ours, audit off", ("ours-audit-off",), "ours-audit-off"),
        Target("ours-rules", "ours, with path rules", ("ours",), "ours", path="/verify/rules"),
        Target("ours-forward-auth", "ours, asked by Traefik", ("ours",), "ours", path="/forward-auth"),
        Target("ours-ext-authz", "ours, asked by Envoy", ("ours",), "ours", path=f"/ext-authz/default{API_PATH}"),
        Target("fastapi", "FastAPI + PyJWKClient", ("fastapi",), "fastapi"),
        Target("node-aws", "Node aws-jwt-verify", ("node-aws",), "node-aws"),
        Target("node-fast-jwt", "Node fast-jwt with its cache", ("node-fast-jwt",), "node-fast-jwt"),
        Target("envoy", "Envoy jwt_authn", ("envoy",), "envoy", checks_scope=False),
        Target("envoy-cache", "Envoy jwt_authn with its cache", ("envoy-cache",), "envoy-cache", checks_scope=False),
        Target("uvicorn", "uvicorn answering a constant", ("uvicorn",), "uvicorn", verifies=False),
        Target("nginx-floor", "nginx return 200", ("nginx-floor",), "nginx-floor", verifies=False),
        Target("front-plain", "nginx without auth", ("nginx-front",), "front-plain", proxied=True, verifies=False),
        _front("nginx-floor", "return 200", "new connections", "front-floor-close", verifies=False),
        _front("nginx-floor", "return 200", "keepalive", "front-floor-keepalive", verifies=False),
        _front("uvicorn", "a constant", "new connections", "front-uvicorn-close", verifies=False),
        _front("uvicorn", "a constant", "keepalive", "front-uvicorn-keepalive", verifies=False),
        _front("ours", "ours", "new connections", "front-ours-close"),
        _front("ours", "ours", "keepalive", "front-ours-keepalive"),
        _front("ours-uds", "ours", "Unix socket, keepalive", "front-ours-uds"),
        _front("ours-uds", "ours", "Unix socket, new connections", "front-ours-uds-close"),
        _front("ours-ttl", "ours", "nginx_cache_ttl, new connections", "front-ours-cache"),
        _front("ours-ttl", "ours", "nginx_cache_ttl, new connections, aio threads", "front-ours-cache-aio"),
        _front("ours-ttl", "ours", "nginx_cache_ttl, new connections, open_file_cache", "front-ours-cache-open"),
        _front("fastapi", "FastAPI", "new connections", "front-fastapi-close"),
        _front("fastapi", "FastAPI", "keepalive", "front-fastapi-keepalive"),
        Target(
            "envoy-ext-authz", "Envoy ext_authz + ours", ("ours", "envoy-ext-authz"), "envoy-ext-authz", proxied=True
        ),
        Target("envoy-proxy", "Envoy jwt_authn, proxying", ("envoy",), "envoy-proxy", proxied=True, checks_scope=False),
        Target(
            "envoy-cache-proxy",
            "Envoy jwt_authn with its cache, proxying",
            ("envoy-cache",),
            "envoy-cache-proxy",
            proxied=True,
            checks_scope=False,
        ),
    )
}


@dataclass(frozen=True)
class Load:
    """How a side is asked in a closed loop.

    `tokens` is the name of a file of tokens. `fresh`: each token must be new to every cache, so the cycle continues
    from window to window. `close`: each request announces `Connection: close`, so the next one needs a new connection.
    """

    name: str
    title: str
    status: int
    tokens: str
    fresh: bool = False
    connections: int = CONNECTIONS
    close: bool = False


LOADS: dict[str, Load] = {
    load.name: load
    for load in (
        Load("hot", "HOT: 100 tokens in turn", 200, "hot"),
        Load("hot-single", "HOT, one at a time: one kept connection, one request at a time", 200, "hot", connections=1),
        Load(
            "hot-new", "HOT, new connections: asked directly, one connection for each request", 200, "hot", close=True
        ),
        Load("cold", "COLD: every token new to the cache", 200, "cold", fresh=True),
        Load(
            "cold-single",
            "COLD, one at a time: one kept connection, one request at a time",
            200,
            "cold",
            fresh=True,
            connections=1,
        ),
        Load("es256-cold", "COLD, ES256", 200, "es256-cold", fresh=True),
        Load("bad", "BAD: signature mutated, every token new", 401, "bad", fresh=True),
        Load("bad-hot", "BAD, 100 tokens in turn", 401, "bad-hot"),
        Load("junk", "JUNK: no tokens at all, every one new", 401, "junk", fresh=True),
        Load("junk-hot", "JUNK, 100 in turn", 401, "junk-hot"),
        Load("flood", "FLOOD: unknown keys, every one different", 401, "flood", fresh=True),
    )
}

Cells = tuple[tuple[str, str], ...]

# Each load with the targets that it is measured on, in the order of measurement: the sides of a comparison stand in
# one cell, so that they are measured close to each other in time.
CELLS: Cells = (
    (
        "hot",
        "ours ours-before ours-forward-auth ours-ext-authz ours-audit-off ours-rules "
        "fastapi node-aws node-fast-jwt envoy envoy-cache uvicorn nginx-floor",
    ),
    ("hot-single", "ours ours-before node-aws envoy envoy-cache uvicorn nginx-floor"),
    ("hot-new", "ours ours-before uvicorn nginx-floor"),
    ("cold", "ours ours-before fastapi node-aws node-fast-jwt envoy"),
    ("cold-single", "ours ours-before node-aws envoy"),
    ("es256-cold", "ours node-aws envoy"),
    ("bad", "ours node-aws envoy"),
    ("bad-hot", "ours envoy"),
    ("junk", "ours node-aws envoy"),
    ("junk-hot", "ours envoy"),
    ("flood", "ours node-aws envoy"),
    (
        "hot",
        "front-plain front-floor-close front-floor-keepalive front-uvicorn-close front-uvicorn-keepalive "
        "front-ours-close front-ours-keepalive front-ours-uds front-ours-uds-close "
        "front-ours-cache front-ours-cache-aio front-ours-cache-open front-fastapi-close front-fastapi-keepalive "
        "envoy-ext-authz envoy-proxy envoy-cache-proxy",
    ),
    (
        "cold",
        "front-ours-close front-ours-keepalive front-ours-uds front-fastapi-close front-fastapi-keepalive "
        "envoy-ext-authz envoy-proxy",
    ),
)

RATE = 500
FIXED_RATE: Cells = (
    ("hot", "ours fastapi node-aws envoy envoy-cache uvicorn"),
    ("cold", "ours fastapi node-aws envoy"),
)


@dataclass(frozen=True)
class Comparison:
    """One line of a table of ratios; the goals are what the project asks of itself, and nothing asserts them.

    `goal` is for (ours / other) in requests a second, `cpu_goal` for the same ratio in CPU time for a request.
    """

    load: str
    ours: str
    other: str
    goal: str = ""
    cpu_goal: str = ""


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("hot", "ours", "fastapi", "≥ 10"),
    Comparison("hot", "ours", "node-aws", "≥ 2.3"),
    Comparison("hot", "ours", "node-fast-jwt"),
    Comparison("hot", "ours", "envoy", "≥ 2"),
    Comparison("hot", "ours", "envoy-cache", "≥ 1.5"),
    Comparison("hot", "ours", "uvicorn", "≥ 0.6"),
    Comparison("hot", "ours", "nginx-floor"),
    Comparison("hot", "ours-audit-off", "ours"),
    Comparison("hot", "ours-rules", "ours"),
    Comparison("hot", "ours-forward-auth", "ours", "≥ 0.95"),
    Comparison("hot", "ours-ext-authz", "ours", "≥ 0.95"),
    Comparison("hot-single", "ours", "node-aws", "≥ 3"),
    Comparison("hot-single", "ours", "envoy", "≥ 2.2"),
    Comparison("hot-single", "ours", "envoy-cache", "≥ 1.4"),
    Comparison("hot-single", "ours", "uvicorn"),
    Comparison("hot-single", "ours", "nginx-floor"),
    Comparison("hot-new", "ours", "uvicorn"),
    Comparison("hot-new", "ours", "nginx-floor"),
    Comparison("cold", "ours", "fastapi", "≥ 4"),
    Comparison("cold", "ours", "node-aws", "≥ 1.3"),
    Comparison("cold", "ours", "node-fast-jwt"),
    Comparison("cold", "ours", "envoy", "≥ 1.1"),
    Comparison("cold-single", "ours", "node-aws"),
    Comparison("cold-single", "ours", "envoy", "≥ 0.9"),
    Comparison("es256-cold", "ours", "node-aws"),
    Comparison("es256-cold", "ours", "envoy"),
    Comparison("bad-hot", "ours", "envoy", "≥ 1"),
    Comparison("bad", "ours", "envoy", "≥ 0.9"),
    Comparison("bad", "ours", "node-aws"),
    Comparison("junk-hot", "ours", "envoy", "≥ 1"),
    Comparison("junk", "ours", "envoy", "≥ 0.9"),
    Comparison("junk", "ours", "node-aws"),
    Comparison("flood", "ours", "envoy"),
    Comparison("flood", "ours", "node-aws"),
    # No goal against Envoy over new connections and for COLD: docs/performance.md, "What does not get there".
    Comparison("hot", "front-ours-close", "envoy-proxy"),
    Comparison("hot", "front-ours-keepalive", "envoy-proxy", "≥ 1.8"),
    Comparison("hot", "front-ours-uds", "envoy-proxy", "≥ 1.8"),
    Comparison("hot", "front-ours-cache", "envoy-proxy", "≥ 4.5"),
    Comparison("hot", "front-ours-cache", "envoy-cache-proxy", "≥ 3"),
    Comparison("hot", "front-ours-cache-aio", "envoy-proxy"),
    Comparison("hot", "front-ours-cache-aio", "envoy-cache-proxy"),
    Comparison("hot", "front-ours-cache-open", "envoy-proxy"),
    Comparison("hot", "front-ours-cache-open", "envoy-cache-proxy"),
    Comparison("hot", "front-plain", "envoy-proxy"),
    Comparison("hot", "front-ours-keepalive", "envoy-cache-proxy"),
    *(Comparison("cold", f"front-ours-{how}", "envoy-proxy") for how in ("close", "keepalive", "uds")),
    *(
        Comparison("hot", f"front-{floor}-{how}", "envoy-proxy")
        for floor in ("floor", "uvicorn")
        for how in ("close", "keepalive")
    ),
    Comparison("hot", "envoy-ext-authz", "envoy-proxy"),
    Comparison("hot", "envoy-ext-authz", "envoy-cache-proxy"),
    Comparison("cold", "envoy-ext-authz", "envoy-proxy"),
    Comparison("hot", "front-ours-keepalive", "envoy-ext-authz"),
    Comparison("hot", "front-ours-close", "front-uvicorn-close", "≥ 0.93"),
    Comparison("hot", "front-ours-close", "front-fastapi-close"),
    Comparison("hot", "front-ours-keepalive", "front-fastapi-keepalive", "≥ 7"),
    Comparison("cold", "front-ours-close", "front-fastapi-close"),
    Comparison("cold", "front-ours-keepalive", "front-fastapi-keepalive", "≥ 4"),
    Comparison("hot", "front-ours-uds", "front-ours-keepalive"),
    Comparison("hot", "front-ours-uds-close", "front-ours-close"),
    Comparison("hot", "front-ours-cache", "front-ours-close"),
    Comparison("hot", "front-ours-keepalive", "front-plain"),
)

BEFORE_AFTER: tuple[Comparison, ...] = (
    Comparison("hot", "ours", "ours-before", "≥ 0.95"),
    Comparison("hot-single", "ours", "ours-before"),
    Comparison("hot-new", "ours", "ours-before", cpu_goal="≤ 0.75"),
    Comparison("cold", "ours", "ours-before"),
    Comparison("cold-single", "ours", "ours-before"),
)

SHORT = {
    "only": "ours,ours-before,fastapi,node-aws,envoy,envoy-cache,uvicorn,nginx-floor,"
    "front-ours-close,front-uvicorn-close,front-ours-cache,front-ours-cache-aio,front-ours-cache-open,"
    "envoy-proxy,envoy-cache-proxy",
    "load": "hot,hot-single,hot-new,cold,cold-single",
    "probes": "none",
}
"""The options that `--short` stands for."""


def select(cells: Cells, *, targets: set[str], loads: set[str]) -> list[tuple[str, list[str]]]:
    """The cells whose target and load are wanted, empty ones left out."""
    chosen = [(load, [name for name in names.split() if name in targets]) for load, names in cells if load in loads]
    return [(load, names) for load, names in chosen if names]


def rotated(names: list[str], by: int) -> list[str]:
    """Another order in each round, backwards in every other pair of rounds: no side always runs after the same one."""
    start = by % len(names)
    turned = names[start:] + names[:start]
    return turned[::-1] if by // 2 % 2 else turned
