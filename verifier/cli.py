"""The command line: each command is one function call. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

from verifier import __version__, logs
from verifier.server import signals

log = logging.getLogger(__name__)

USAGE_ERROR, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The exit status."""
    os.environ["PYTHONSAFEPATH"] = "1"  # child processes must not import from the working directory
    options = _parser().parse_args(arguments)
    if options.command is _serve:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is often sent to reload, for which no signal is needed
        signals.exit_at_once()
    elif options.command is _demo:
        signals.block()
    logs.configure(options.log_level)
    from verifier.config import ConfigError

    try:
        return int(options.command(options))
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="m2m-verifier", description="Verifies machine-to-machine tokens for nginx.")
    parser.set_defaults(log_level=logging.WARNING)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", type=Path, metavar="FILE", help="configuration file (M2M_CONFIG)")

    serve = commands.add_parser("serve", parents=[config], help="answer subrequests")
    serve.add_argument("--host", metavar="H", help="address to listen on (M2M_HOST, 0.0.0.0)")
    serve.add_argument("--port", type=_port, metavar="N", help="port for subrequests (M2M_PORT, 8000)")
    serve.add_argument(
        "--uds",
        type=Path,
        metavar="PATH",
        help="Unix socket instead of host and port, for an nginx on the same machine",
    )
    serve.add_argument("--metrics-port", type=_port, metavar="N", help="port for Prometheus (M2M_METRICS_PORT, 9090)")
    serve.add_argument("--workers", type=int, metavar="N", help="number of processes (M2M_WORKERS, 1)")
    serve.set_defaults(command=_serve, log_level=logging.INFO)

    check = commands.add_parser("check", parents=[config], help="validate the configuration: exit 0 or 2")
    check.set_defaults(command=_check)

    explain = commands.add_parser(
        "explain", parents=[config], help="read a token from stdin and print each step of the decision",
        description="Reads a token from stdin. Exit 0: allowed, 1: denied, 2: indeterminate.",
    )  # fmt: skip
    explain.add_argument("--url", required=True, metavar="U", help="URL of the original request")
    explain.add_argument("--method", default="GET", help="method of the original request (%(default)s)")
    explain.add_argument("--policy", metavar="P", help="policy (default)")
    explain.add_argument("--auth-url", metavar="PATH?QUERY", help="auth URL instead of --policy, as in the Ingress")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(command=_explain)

    lint = commands.add_parser("lint", help="read Ingress YAML and report each known trap: exit 0 or 1")
    lint.add_argument(
        "--config", type=Path, metavar="FILE", help="the verifier's configuration, for its policies and headers"
    )
    lint.add_argument("files", type=Path, nargs="+", metavar="FILE", help="Kubernetes YAML (/dev/stdin for a pipe)")
    lint.set_defaults(command=_lint)

    demo = commands.add_parser("demo", help="run issuer, verifier, nginx and an API on this machine")
    demo.add_argument("--port", type=_port, default=8080, metavar="N", help="nginx's port (%(default)s)")
    demo.add_argument("--check", action="store_true", help="run the self-test and exit 0 or 1")
    demo.set_defaults(command=_demo)
    return parser


def _port(written: str) -> int:
    if not written.isdecimal() or int(written) > 65535:
        raise argparse.ArgumentTypeError("must be a number up to 65535")
    return int(written)


def _serve(options: argparse.Namespace) -> int:
    from verifier.config import ConfigError
    from verifier.config.load import load
    from verifier.server import run, workers

    config = load(options.config)
    given = {name: value for name, value in vars(options).items() if value is not None}
    listen = replace(config.listen, **{name: given[name] for name in vars(config.listen) if name in given})
    if listen.workers < 1:
        raise ConfigError(["--workers: must be at least 1"])
    try:
        http = run.listen_unix(options.uds) if options.uds else run.listen(listen.host, listen.port)
        metrics = run.listen(listen.host, listen.metrics_port)
    except (OSError, OverflowError) as error:
        print(f"cannot listen: {error}", file=sys.stderr)
        return 1
    log.info("listening on %s, metrics on %s", _address(http), _address(metrics))
    sockets = run.Sockets(http, metrics)
    if listen.workers == 1:
        run.run(run.run_single(config, sockets))
    else:
        run.run(workers.Supervisor(listen.workers, config, sockets).run())
    if options.uds:
        options.uds.unlink(missing_ok=True)
    return 0


def _address(sock: socket.socket) -> str:
    address = sock.getsockname()
    return address if isinstance(address, str) else "{}:{}".format(*address)


def _check(options: argparse.Namespace) -> int:
    from verifier.config.load import load

    config = load(options.config)
    issuers = ", ".join(issuer.name for issuer in config.issuers)
    print(f"ok: issuers {issuers}; policies {', '.join(config.policies.by_name)}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from verifier.config.load import load
    from verifier.tools import explain

    return explain.run(load(options.config), options, sys.stdin.buffer.read(), sys.stdout)


def _lint(options: argparse.Namespace) -> int:
    from verifier.config.load import load
    from verifier.tools import lint

    known = lint.Known.of(load(options.config)) if options.config else None
    return lint.main(options.files, known, sys.stdout)


def _demo(options: argparse.Namespace) -> int:
    from verifier.demo.run import run

    return run(options.port, options.check)
