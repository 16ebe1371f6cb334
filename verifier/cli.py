"""The commands: arguments in, exit status out; the work is done elsewhere."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from verifier.config_file import ConfigError, Environment, Watch, load, read_environment

USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The exit status."""
    try:
        environment = read_environment()
        options = _parser(environment).parse_args(arguments)
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        for chatty in ("httpx", "httpcore", "uvicorn", "asyncio"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        return int(options.command(options, environment))
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 0


def _parser(environment: Environment) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="m2m-verifier", description="Verifies machine-to-machine tokens for nginx.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config", type=Path, default=environment.m2m_config, metavar="FILE", help="the configuration (M2M_CONFIG)"
    )

    serve = commands.add_parser("serve", parents=[config], help="answer subrequests")
    serve.add_argument("--host", default=environment.m2m_host, metavar="H", help="address (M2M_HOST, %(default)s)")
    serve.add_argument(
        "--port", type=int, default=environment.m2m_port, metavar="N", help="for subrequests (M2M_PORT, %(default)s)"
    )
    serve.add_argument(
        "--metrics-port", type=int, default=environment.m2m_metrics_port, metavar="N",
        help="for Prometheus (M2M_METRICS_PORT, %(default)s)",
    )  # fmt: skip
    serve.add_argument(
        "--workers", type=int, default=environment.m2m_workers, metavar="N", help="processes (M2M_WORKERS, %(default)s)"
    )
    serve.set_defaults(command=_serve)

    check = commands.add_parser("check", parents=[config], help="validate the configuration: exit 0 or 2")
    check.set_defaults(command=_check)

    explain = commands.add_parser(
        "explain", parents=[config], help="read a token from stdin and tell each step of the decision",
        description="Reads a token from stdin. Exit 0: allowed, 1: denied, 2: nobody could tell.",
    )  # fmt: skip
    explain.add_argument("--url", required=True, metavar="U", help="the original request's URL")
    explain.add_argument("--method", default="GET", help="its method (%(default)s)")
    explain.add_argument("--policy", metavar="P", help="the policy (default)")
    explain.add_argument("--auth-url", metavar="PATH?QUERY", help="the auth URL instead, as the Ingress has it")
    explain.add_argument("--json", action="store_true", help="for programs")
    explain.set_defaults(command=_explain)

    demo = commands.add_parser("demo", help="everything on this machine: issuer, verifier, nginx and an API")
    demo.add_argument("--port", type=int, default=8080, metavar="N", help="nginx's port (%(default)s)")
    demo.add_argument("--check", action="store_true", help="test itself and exit 0 or 1")
    demo.set_defaults(command=_demo)

    worker = commands.add_parser("worker", parents=[config])  # serve starts these; no help: nobody types it
    worker.add_argument("http", type=int)
    worker.add_argument("control", type=int)
    worker.set_defaults(command=_worker)
    return parser


# What a command needs is imported when it runs: `check` loads no server, `lint` no cryptography.


def _serve(options: argparse.Namespace, environment: Environment) -> int:
    from verifier import server, workers

    if options.workers < 1:
        raise ConfigError(["--workers: must be at least 1"])
    load(options.config, environment)
    try:
        http = server.listen(options.host, options.port)
        metrics = server.listen(options.host, options.metrics_port)
    except (OSError, OverflowError) as error:
        print(f"cannot listen on {options.host}: {error}", file=sys.stderr)
        return 1
    listeners = server.Listeners(http, metrics)
    logging.getLogger(__name__).info(
        "listening on %s:%d, metrics on port %d", *http.getsockname()[:2], metrics.getsockname()[1]
    )
    if options.workers == 1:
        server.run_single(_application(options, environment), listeners)
    else:
        named = ["--config", str(options.config)] if options.config else []
        workers.run_parent(options.workers, named, listeners)
    return 0


def _worker(options: argparse.Namespace, environment: Environment) -> int:
    from verifier import workers

    workers.run_worker(_application(options, environment), options.http, options.control)
    return 0


def _application(options: argparse.Namespace, environment: Environment):  # type: ignore[no-untyped-def]
    from verifier.app import create_app

    settings = load(options.config, environment)
    reload = Watch(options.config, environment, settings) if options.config else None
    return create_app(settings, reload=reload)


def _check(options: argparse.Namespace, environment: Environment) -> int:
    settings = load(options.config, environment)
    issuers = ", ".join(issuer.name for issuer in settings.issuers)
    policies = ", ".join(settings.build_policies().by_name)
    print(f"ok: issuers {issuers}; policies {policies}")
    return 0


def _explain(options: argparse.Namespace, environment: Environment) -> int:
    from verifier import explain

    settings = load(options.config, environment)
    return explain.run(settings, options, sys.stdin.buffer.read(), sys.stdout)


def _demo(options: argparse.Namespace, _: Environment) -> int:
    from verifier.demo import stack

    return stack.run(options.port, options.check)
