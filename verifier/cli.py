"""The command line: each command is one function call. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from verifier import logs
from verifier.options import parser
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
    options = parser().parse_args(arguments)
    serves = options.command == "serve" or (options.command == "canary" and not options.once)
    if serves:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is often sent to reload, for which no signal is needed
        signals.exit_at_once()
    elif options.command == "demo":
        signals.block()
    logs.configure(options.log_level, queued=serves)
    from verifier.config import ConfigError

    try:
        status = _COMMANDS[options.command](options)
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
    from verifier.tools import guard

    config = _load_without_address(options) if options.config or os.environ.get("M2M_CONFIG") else None
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


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve, "check": _check, "explain": _explain, "lint": _lint, "report": _report, "guard": _guard,
    "canary": _canary, "demo": _demo,
}  # fmt: skip
