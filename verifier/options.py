"""The command line's options."""

from __future__ import annotations

import argparse
import logging
import re
from functools import partial
from pathlib import Path

from verifier import __version__


def parser() -> argparse.ArgumentParser:
    """The parser. ``command`` of its result is the name of the command."""
    whole = argparse.ArgumentParser(
        prog="m2m-verifier", description="Verifies machine-to-machine tokens for nginx and other proxies."
    )
    whole.set_defaults(log_level=logging.WARNING)
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = whole.add_subparsers(required=True, dest="command", metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", type=Path, metavar="FILE", help="configuration file (M2M_CONFIG)")

    serve = commands.add_parser("serve", parents=[config], help="answer the auth requests of a proxy")
    serve.add_argument("--host", metavar="H", help="address to listen on (M2M_HOST, 0.0.0.0)")
    serve.add_argument("--port", type=_port, metavar="N", help="port for auth requests (M2M_PORT, 8000)")
    serve.add_argument("--uds", type=Path, metavar="PATH", help="Unix socket instead of host and port")
    serve.add_argument("--uds-mode", type=_mode, metavar="MODE", help="the Unix socket's file mode (0660)")
    serve.add_argument("--metrics-port", type=_port, metavar="N", help="port for Prometheus (M2M_METRICS_PORT, 9090)")
    serve.add_argument("--workers", type=_workers, metavar="N", help="number of processes (M2M_WORKERS, 1)")
    serve.set_defaults(log_level=logging.INFO)

    check = commands.add_parser("check", parents=[config], help="validate the configuration: exit 0 or 2")
    check.add_argument("--online", action="store_true", help="also fetch each issuer's keys")

    explain = commands.add_parser(
        "explain", parents=[config], help="read a token from stdin and print each step of the decision",
        description="Reads a token from stdin. Headers that prove who sends it may follow, one a line (DPoP: PROOF). "
        "Exit 0: allowed, 1: denied, 2: indeterminate.",
    )  # fmt: skip
    explain.add_argument("--url", required=True, metavar="U", help="URL of the original request")
    explain.add_argument("--method", default="GET", help="method of the original request (%(default)s)")
    explain.add_argument("--policy", metavar="P", help="policy (default)")
    explain.add_argument("--auth-url", metavar="PATH?QUERY", help="auth URL instead of --policy, as in the Ingress")
    explain.add_argument("--json", action="store_true", help="print JSON")

    lint = commands.add_parser(
        "lint", help="read Kubernetes YAML and report what takes the guard of an API away: exit 0 or 1",
        description="Reads Ingresses, and objects of Traefik, the Gateway API, Envoy Gateway, Istio and F5's "
        "controller, from all files together. Reports each known trap with its line. Exit 0: no finding, 1: findings, "
        "2: the configuration is wrong.",
    )  # fmt: skip
    lint.add_argument("--config", type=Path, metavar="FILE", help="to compare with its policies and headers")
    lint.add_argument("files", type=Path, nargs="+", metavar="FILE", help="Kubernetes YAML (/dev/stdin for a pipe)")

    report = commands.add_parser(
        "report", help="read audit lines: who calls what, who is refused, who would lose access",
        description="Reads audit lines, gzip files too, and prints the requests of each client. With a configuration, "
        "it also decides about them again and prints what would change. "
        "Exit 0: nobody loses access, 1: somebody does, 2: the report is not complete.",
    )  # fmt: skip
    report.add_argument("files", nargs="+", metavar="FILE", help="audit lines, plain or gzip; - for standard input")
    report.add_argument("--config", type=Path, metavar="FILE", help="configuration to replay the lines with")
    report.add_argument(
        "--without-scope", action="append", default=[], metavar="S", help="as if no client had this scope; repeatable"
    )
    report.add_argument(
        "--revoke", action="append", default=[], metavar="CLIENT", help="as if it were under `revoked`; repeatable"
    )
    report.add_argument(
        "--auth-url", action="append", default=[], metavar="PATH?QUERY",
        help="auth URL in the Ingresses of a policy, if it has parameters; repeatable",
    )  # fmt: skip
    report.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: %(default)s")

    guard = commands.add_parser("guard", parents=[config], help="print the configuration block that guards an API")
    guard.add_argument(
        "--proxy", required=True, metavar="NAME",
        help="nginx, ingress-nginx, traefik, traefik-ingress-nginx, caddy, envoy, envoy-gateway, istio, haproxy, "
        "gateway-api, nginx-gateway-fabric, nginx-ingress-controller, cilium",
    )  # fmt: skip
    guard.add_argument("--policy", required=True, metavar="P", help="policy of the API")

    canary = commands.add_parser(
        "canary", help="ask through the proxy, again and again, whether the guard works",
        description="Asks through the proxy: without a token, with forged identity headers, with expired, altered and "
        "good tokens. The results are metrics. "
        "With --once, exit 0: all is well, 1: a check failed, 2: a check could not be made.",
    )  # fmt: skip
    canary.add_argument("--config", type=Path, required=True, metavar="FILE", help="the canary's own file")
    canary.add_argument("--host", default="0.0.0.0", metavar="H", help="address to listen on (%(default)s)")  # noqa: S104 - as serve does
    canary.add_argument(
        "--metrics-port", type=_port, default=9090, metavar="N", help="port for Prometheus (%(default)s)"
    )
    canary.add_argument("--echo-port", type=_port, metavar="N", help="serve the echo endpoint on this port")
    canary.add_argument("--once", action="store_true", help="make one round and print the results")
    canary.set_defaults(log_level=logging.INFO)

    demo = commands.add_parser("demo", help="run token issuer, verifier, nginx and an API on this machine")
    demo.add_argument("--port", type=_port, default=8080, metavar="N", help="nginx's port (%(default)s)")
    demo.add_argument("--check", action="store_true", help="run the self-test and exit 0 or 1")
    return whole


def _number(written: str, least: int, most: int) -> int:
    if not written.isdecimal() or not least <= int(written) <= most:
        raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
    return int(written)


_port = partial(_number, least=0, most=65535)
_workers = partial(_number, least=1, most=64)


def _mode(written: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", written):
        raise argparse.ArgumentTypeError("must be an octal file mode, as in 0660")
    return int(written, 8)
