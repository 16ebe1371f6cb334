"""The command line: each command is one function call. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from verifier import __version__, logs
from verifier.server import signals

if TYPE_CHECKING:
    from prometheus_client import Metric

    from verifier.config import Config

log = logging.getLogger(__name__)

USAGE_ERROR, KEYS_MISSING, INTERRUPTED, OUTPUT_CLOSED = 2, 2, 130, 141
UDS_MODE = 0o660


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The exit status."""
    os.environ["PYTHONSAFEPATH"] = "1"  # child processes must not import from the working directory
    options = _parser().parse_args(arguments)
    serves = options.command is _serve or (options.command is _canary and not options.once)
    if serves:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is often sent to reload, for which no signal is needed
        signals.exit_at_once()
    elif options.command is _demo:
        signals.block()
    logs.configure(options.log_level, queued=serves)
    from verifier.config import ConfigError

    try:
        status = int(options.command(options))
        sys.stdout.flush()
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more
        return OUTPUT_CLOSED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="m2m-verifier", description="Verifies machine-to-machine tokens for nginx.")
    parser.set_defaults(log_level=logging.WARNING)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", type=Path, metavar="FILE", help="configuration file (M2M_CONFIG)")

    serve = commands.add_parser("serve", parents=[config], help="answer subrequests")
    serve.add_argument("--host", metavar="H", help="address to listen on (M2M_HOST, 0.0.0.0)")
    serve.add_argument("--port", type=_number(0, 65535), metavar="N", help="port for subrequests (M2M_PORT, 8000)")
    serve.add_argument("--uds", type=Path, metavar="PATH", help="Unix socket instead of host and port")
    serve.add_argument("--uds-mode", type=_mode, metavar="MODE", help="the Unix socket's file mode (0660)")
    serve.add_argument(
        "--metrics-port", type=_number(0, 65535), metavar="N", help="port for Prometheus (M2M_METRICS_PORT, 9090)"
    )
    serve.add_argument("--workers", type=_number(1, 64), metavar="N", help="number of processes (M2M_WORKERS, 1)")
    serve.set_defaults(command=_serve, log_level=logging.INFO)

    check = commands.add_parser("check", parents=[config], help="validate the configuration: exit 0 or 2")
    check.add_argument("--online", action="store_true", help="also fetch each issuer's keys")
    check.set_defaults(command=_check)

    explain = commands.add_parser(
        "explain", parents=[config], help="read a token from stdin and print each step of the decision",
        description="Reads a token from stdin. Headers that prove whose it is may follow, one a line (DPoP: PROOF). "
        "Exit 0: allowed, 1: denied, 2: indeterminate.",
    )  # fmt: skip
    explain.add_argument("--url", required=True, metavar="U", help="URL of the original request")
    explain.add_argument("--method", default="GET", help="method of the original request (%(default)s)")
    explain.add_argument("--policy", metavar="P", help="policy (default)")
    explain.add_argument("--auth-url", metavar="PATH?QUERY", help="auth URL instead of --policy, as in the Ingress")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(command=_explain)

    lint = commands.add_parser("lint", help="read Ingress YAML and report each known trap: exit 0 or 1")
    lint.add_argument("--config", type=Path, metavar="FILE", help="to compare with its policies and headers")
    lint.add_argument("files", type=Path, nargs="+", metavar="FILE", help="Kubernetes YAML (/dev/stdin for a pipe)")
    lint.set_defaults(command=_lint)

    report = commands.add_parser(
        "report", help="read audit lines: who calls what, who is refused, who would lose access",
        description="Reads audit lines, gzip files too, and prints the requests of each client. With a configuration, "
        "it also decides about them again and prints what would change. "
        "Exit 0: nobody loses access, 1: somebody does, 2: there is no complete report.",
    )  # fmt: skip
    report.add_argument("files", nargs="+", metavar="FILE", help="audit lines, or gzip of them; - for standard input")
    report.add_argument("--config", type=Path, metavar="FILE", help="configuration to replay the lines with")
    report.add_argument(
        "--without-scope", action="append", default=[], metavar="S", help="as if no client had this scope; repeatable"
    )
    report.add_argument(
        "--revoke", action="append", default=[], metavar="CLIENT", help="as if it were under `revoked`; repeatable"
    )
    report.add_argument(
        "--auth-url", action="append", default=[], metavar="PATH?QUERY",
        help="auth URL in the Ingress of a policy, whose parameters no line has; repeatable",
    )  # fmt: skip
    report.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: %(default)s")
    report.set_defaults(command=_report)

    guard = commands.add_parser("guard", parents=[config], help="print the configuration block that guards an API")
    guard.add_argument(
        "--proxy", required=True, metavar="NAME",
        help="nginx, ingress-nginx, traefik, traefik-ingress-nginx, caddy, envoy, envoy-gateway, istio, haproxy, "
        "gateway-api, nginx-gateway-fabric, nginx-ingress-controller, cilium",
    )  # fmt: skip
    guard.add_argument("--policy", required=True, metavar="P", help="policy of the API")
    guard.set_defaults(command=_guard)

    canary = commands.add_parser(
        "canary", help="ask through the proxy, again and again, whether the guard works",
        description="Asks through the proxy: without a token, with forged identity headers, with expired, altered and "
        "good tokens. The results are metrics. "
        "With --once, exit 0: all is well, 1: a check failed, 2: a check could not be made.",
    )  # fmt: skip
    canary.add_argument("--config", type=Path, required=True, metavar="FILE", help="the canary's own file")
    canary.add_argument("--host", default="0.0.0.0", metavar="H", help="address to listen on (%(default)s)")  # noqa: S104 - as serve does
    canary.add_argument(
        "--metrics-port", type=_number(0, 65535), default=9090, metavar="N", help="port for Prometheus (%(default)s)"
    )
    canary.add_argument("--echo-port", type=_number(0, 65535), metavar="N", help="serve the echo endpoint on this port")
    canary.add_argument("--once", action="store_true", help="make one round and print the results")
    canary.set_defaults(command=_canary, log_level=logging.INFO)

    demo = commands.add_parser("demo", help="run issuer, verifier, nginx and an API on this machine")
    demo.add_argument("--port", type=_number(0, 65535), default=8080, metavar="N", help="nginx's port (%(default)s)")
    demo.add_argument("--check", action="store_true", help="run the self-test and exit 0 or 1")
    demo.set_defaults(command=_demo)
    return parser


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(written: str) -> int:
        if not written.isdecimal() or not least <= int(written) <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return int(written)

    return parse


def _mode(written: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", written):
        raise argparse.ArgumentTypeError("must be an octal file mode, as in 0660")
    return int(written, 8)


def _serve(options: argparse.Namespace) -> int:
    from verifier.config import ConfigError
    from verifier.config.environment import read_environment
    from verifier.config.load import load
    from verifier.server import run, sockets, workers

    if options.uds_mode is not None and not options.uds:
        raise ConfigError(["--uds-mode: needs --uds"])
    names = ("host", "port", "metrics_port", "workers")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.uds:
        given = {"port": 0, **given}
        if os.environ.get("M2M_PORT"):
            log.warning("M2M_PORT has no effect: --uds is given")
    config = load(options.config, read_environment(given))
    listen = config.listen
    metrics = _listening(sockets.listen, listen.host, listen.metrics_port)
    remove = None
    if options.uds:
        http = _listening(sockets.listen_unix, options.uds, UDS_MODE if options.uds_mode is None else options.uds_mode)
        remove = sockets.remover(options.uds)
    else:
        http = _listening(sockets.listen, listen.host, listen.port)
    log.info("listening on %s, metrics on %s", _address(http), _address(metrics))
    listening = run.Sockets(http, metrics)
    if listen.workers == 1:
        run.run(run.run_single(config, listening))
    else:
        run.run(workers.Supervisor(listen.workers, config, listening).run())
    if remove is not None:
        remove()
    return 0


def _listening(listen: Callable[..., socket.socket], where: str | Path, detail: int) -> socket.socket:
    """A socket that listens on host and port, or on a path with a file mode. Exits with status 1 where it cannot."""
    try:
        return listen(where, detail)
    except (OSError, OverflowError, ValueError) as error:
        cause = str(getattr(error, "strerror", None) or error).partition(" (while")[0]  # the address stands before it
        if not isinstance(where, Path):
            sys.exit(f"cannot listen on {where}:{detail}: {cause}")
        if not where.parent.is_dir():
            cause = f"there is no folder {where.parent}"
        sys.exit(f"cannot listen on {where}: {cause}")


def _address(sock: socket.socket) -> str:
    address = sock.getsockname()
    return address if isinstance(address, str) else "{}:{}".format(*address)


def _check(options: argparse.Namespace) -> int:
    from verifier.config.load import load
    from verifier.identity import IDENTITY_HEADERS

    config = load(options.config)
    issuers = ", ".join(issuer.name for issuer in config.issuers)
    print(f"ok: issuers {issuers}; policies {', '.join(config.policies.by_name)}")
    print("An Ingress must list every identity header, because a client can forge one that is not listed:")
    print(f'nginx.ingress.kubernetes.io/auth-response-headers: "{",".join((*IDENTITY_HEADERS, *config.headers))}"')
    if options.online:
        from verifier.app import http_fetch
        from verifier.tools import online

        return 0 if online.run(config, http_fetch, sys.stdout) else KEYS_MISSING
    return 0


def _load_without_address(options: argparse.Namespace) -> Config:
    """The configuration for a command that listens nowhere: variables about addresses may be invalid."""
    from verifier.config.environment import read_environment
    from verifier.config.load import load

    return load(options.config, read_environment({"host": "", "port": 0, "metrics_port": 0, "workers": 1}))


def _explain(options: argparse.Namespace) -> int:
    from verifier.tools import explain

    return explain.run(_load_without_address(options), options, sys.stdin.buffer.read(), sys.stdout)


def _lint(options: argparse.Namespace) -> int:
    from verifier.tools import lint

    known = lint.Known.of(_load_without_address(options)) if options.config else None
    return lint.main(options.files, known, sys.stdout)


def _guard(options: argparse.Namespace) -> int:
    from verifier.config.load import load
    from verifier.tools import guard

    config = load(options.config) if options.config or os.environ.get("M2M_CONFIG") else None
    return guard.main(options.proxy, options.policy, config, sys.stdout)


def _report(options: argparse.Namespace) -> int:
    from verifier.tools import report

    config = _load_without_address(options) if options.config or os.environ.get("M2M_CONFIG") else None
    stdin = cast(io.BufferedReader, sys.stdin.buffer)  # its documented type; typeshed says less
    return report.run(config, options, stdin, sys.stdout, sys.stderr)


def _canary(options: argparse.Namespace) -> int:
    from verifier.server import run, sockets
    from verifier.tools import canary

    watch = canary.Canary(canary.load(options.config))
    apps = []
    if options.echo_port is not None:
        apps.append((watch.echo, _listening(sockets.listen, options.host, options.echo_port)))
        log.info("the echo endpoint listens on %s", _address(apps[-1][1]))
    if options.once:
        run.run(run.serve_beside(apps, watch.round()))
        print(*(f"{check}: {result}" for check, result in watch.results.items()), sep="\n")
        return watch.status if watch.results else INTERRUPTED

    async def collect() -> Iterable[Metric]:
        return watch.collect()

    apps.append((run.metrics_app(collect), _listening(sockets.listen, options.host, options.metrics_port)))
    log.info("metrics on %s", _address(apps[-1][1]))
    run.run(run.serve_beside(apps, watch.repeat()))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from verifier.demo.run import run

    return run(options.port, options.check)
