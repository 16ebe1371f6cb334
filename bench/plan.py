"""What is measured against what: targets, loads, cells, and the comparisons that the table shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One way to ask one side. `servers` are the processes whose CPU and memory count, the verifier first.

    `port` names the port that is asked; `verifier` is the process with the cache, whose place in a COLD cycle must
    go on from window to window. `proxied`: the answer is the API's, through a proxy.
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
        Target("ours-audit-off", "ours, audit off", ("ours-audit-off",), "ours-audit-off"),
        Target("ours-rules", "ours, with path rules", ("ours",), "ours", path="/verify/rules"),
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
        _front("ours-ttl", "ours", "nginx_cache_ttl", "front-ours-cache"),
        _front("fastapi", "FastAPI", "new connections", "front-fastapi-close"),
        _front("fastapi", "FastAPI", "keepalive", "front-fastapi-keepalive"),
        _front("node-aws", "aws-jwt-verify", "new connections", "front-node-close"),
        _front("node-aws", "aws-jwt-verify", "keepalive", "front-node-keepalive"),
        Target("envoy-proxy", "Envoy proxying", ("envoy",), "envoy-proxy", path="/", proxied=True, checks_scope=False),
        Target(
            "envoy-cache-proxy",
            "Envoy proxying, with its cache",
            ("envoy-cache",),
            "envoy-cache-proxy",
            path="/",
            proxied=True,
            checks_scope=False,
        ),
    )
}


@dataclass(frozen=True)
class Load:
    """A file of tokens. `fresh`: each token must be new to every cache, so the cycle goes on between windows."""

    name: str
    title: str
    status: int
    fresh: bool = False


LOADS: dict[str, Load] = {
    load.name: load
    for load in (
        Load("hot", "HOT: 100 tokens in turn", 200),
        Load("cold", "COLD: every token new to the cache", 200, fresh=True),
        Load("es256-cold", "COLD, ES256", 200, fresh=True),
        Load("bad", "BAD: signature turned over, every token new", 401, fresh=True),
        Load("bad-hot", "BAD, 100 tokens in turn", 401),
        Load("junk", "JUNK: no tokens at all, every one new", 401, fresh=True),
        Load("junk-hot", "JUNK, 100 in turn", 401),
        Load("flood", "FLOOD: unknown keys, every one another", 401, fresh=True),
    )
}

# Each load with the targets that it is measured on. Neighbours in time are compared with each other, so the sides
# of one comparison stand in one line.
CELLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "hot",
        (
            "ours",
            "ours-audit-off",
            "ours-rules",
            "fastapi",
            "node-aws",
            "node-fast-jwt",
            "envoy",
            "envoy-cache",
            "uvicorn",
            "nginx-floor",
        ),
    ),
    ("cold", ("ours", "fastapi", "node-aws", "node-fast-jwt", "envoy", "envoy-cache")),
    ("es256-cold", ("ours", "fastapi", "node-aws", "envoy")),
    ("bad", ("ours", "fastapi", "node-aws", "envoy")),
    ("bad-hot", ("ours", "envoy")),
    ("junk", ("ours", "fastapi", "node-aws", "envoy")),
    ("junk-hot", ("ours", "envoy")),
    ("flood", ("ours", "fastapi", "node-aws", "envoy")),
    (
        "hot",
        (
            "front-plain",
            "front-floor-close",
            "front-floor-keepalive",
            "front-uvicorn-close",
            "front-uvicorn-keepalive",
            "front-ours-close",
            "front-ours-keepalive",
            "front-ours-uds",
            "front-ours-uds-close",
            "front-ours-cache",
            "front-fastapi-close",
            "front-fastapi-keepalive",
            "front-node-close",
            "front-node-keepalive",
            "envoy-proxy",
            "envoy-cache-proxy",
        ),
    ),
    (
        "cold",
        (
            "front-ours-close",
            "front-ours-keepalive",
            "front-ours-uds",
            "front-fastapi-close",
            "front-fastapi-keepalive",
            "envoy-proxy",
        ),
    ),
)

RATES = (500, 1500)
FIXED_RATE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("hot", ("ours", "fastapi", "node-aws", "envoy", "envoy-cache", "uvicorn")),
    ("cold", ("ours", "fastapi", "node-aws", "envoy")),
)


@dataclass(frozen=True)
class Comparison:
    """One line of the table of ratios; `goal` is what we ask of ourselves, written down and never asserted."""

    load: str
    ours: str
    other: str
    goal: str = ""


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("hot", "ours", "fastapi", "≥ 10"),
    Comparison("hot", "ours", "node-aws", "≥ 2.3"),
    Comparison("hot", "ours", "node-fast-jwt"),
    Comparison("hot", "ours", "envoy", "≥ 2"),
    Comparison("hot", "ours", "envoy-cache", "≥ 1"),
    Comparison("hot", "ours", "uvicorn", "≥ 0.6"),
    Comparison("hot", "ours", "nginx-floor"),
    Comparison("hot", "ours-audit-off", "ours"),
    Comparison("hot", "ours-rules", "ours"),
    Comparison("cold", "ours", "fastapi", "≥ 4"),
    Comparison("cold", "ours", "node-aws", "≥ 0.85"),
    Comparison("cold", "ours", "node-fast-jwt"),
    Comparison("cold", "ours", "envoy", "≥ 0.85"),
    Comparison("cold", "ours", "envoy-cache"),
    Comparison("es256-cold", "ours", "fastapi"),
    Comparison("es256-cold", "ours", "node-aws"),
    Comparison("es256-cold", "ours", "envoy"),
    Comparison("bad-hot", "ours", "envoy", "≥ 1"),
    Comparison("bad", "ours", "envoy", "≥ 0.9"),
    Comparison("bad", "ours", "node-aws"),
    Comparison("bad", "ours", "fastapi"),
    Comparison("junk-hot", "ours", "envoy", "≥ 1"),
    Comparison("junk", "ours", "envoy", "≥ 0.9"),
    Comparison("junk", "ours", "node-aws"),
    Comparison("junk", "ours", "fastapi"),
    Comparison("flood", "ours", "envoy"),
    Comparison("flood", "ours", "node-aws"),
    Comparison("flood", "ours", "fastapi"),
    *(
        Comparison(load, f"front-ours-{how}", "envoy-proxy", goal)
        for load, goal in (("hot", "≥ 1.8"), ("cold", "≥ 1.2"))
        for how in ("close", "keepalive", "uds")
    ),
    *(
        Comparison("hot", f"front-{floor}-{how}", "envoy-proxy")
        for floor in ("floor", "uvicorn")
        for how in ("close", "keepalive")
    ),
    Comparison("hot", "front-ours-keepalive", "envoy-cache-proxy"),
    *(
        Comparison(load, f"front-ours-{how}", f"front-fastapi-{how}", goal)
        for load, goal in (("hot", "≥ 7"), ("cold", "≥ 4"))
        for how in ("close", "keepalive")
    ),
    Comparison("hot", "front-floor-close", "front-fastapi-close"),
    Comparison("hot", "front-uvicorn-close", "front-fastapi-close"),
    Comparison("hot", "front-ours-close", "front-uvicorn-close"),
    Comparison("hot", "front-ours-close", "front-node-close"),
    Comparison("hot", "front-ours-keepalive", "front-node-keepalive"),
    Comparison("hot", "front-ours-uds", "front-ours-keepalive"),
    Comparison("hot", "front-ours-uds-close", "front-ours-close"),
    Comparison("hot", "front-ours-cache", "front-ours-keepalive"),
    Comparison("hot", "front-ours-keepalive", "front-plain"),
)


def select(
    cells: tuple[tuple[str, tuple[str, ...]], ...], *, targets: set[str], loads: set[str]
) -> list[tuple[str, list[str]]]:
    """The cells whose target and load are wanted, empty lines left out."""
    chosen = [(load, [name for name in names if name in targets]) for load, names in cells if load in loads]
    return [(load, names) for load, names in chosen if names]


def rotated(names: list[str], by: int) -> list[str]:
    """Another order in each round, so that no side always runs after the same neighbour."""
    by %= len(names)
    return names[by:] + names[:by]
