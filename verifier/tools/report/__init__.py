"""``m2m-verifier report``: who called what, who was refused, and who would lose access with another configuration.

``lines`` reads audit lines, ``replay`` decides about their requests again, ``tally`` counts, ``output`` writes.
"""

from __future__ import annotations

import argparse
import io
from typing import TextIO

from verifier.config import Config, ConfigError
from verifier.reasons import Rejected
from verifier.tools.explain import parse_auth_url
from verifier.tools.report import output
from verifier.tools.report.lines import InputError, parse_line, read
from verifier.tools.report.replay import Replay
from verifier.tools.report.tally import Tally

KEPT, LOST, FAILED = 0, 1, 2
"""The exit statuses: nobody loses access, somebody does, there is no complete report."""


def run(
    config: Config | None, options: argparse.Namespace, stdin: io.BufferedReader, out: TextIO, err: TextIO
) -> int:  # fmt: skip
    """Report on the audit lines of ``options.files``. The exit status.

    Raises:
        ConfigError: an option is not usable.
    """
    tally = Tally(_replay(config, options))
    try:
        for source, number, line in read(options.files, stdin, err):
            try:
                record = parse_line(line)
            except ValueError as error:
                if line.strip():
                    tally.add_broken(source, number, error)
            else:
                tally.add(record)
    except InputError as error:
        print(output.printable(str(error)), file=err)
        return FAILED
    if not tally.requests:
        print("there is no audit line", *map(output.printable, tally.broken_lines), sep="\n", file=err)
        return FAILED
    output.WRITERS[options.format](tally, _assumptions(config, options), out, err)
    return LOST if tally.takes_access else KEPT


def _assumptions(config: Config | None, options: argparse.Namespace) -> list[str]:
    given = [f"the configuration {config.path or 'of the environment'}"] if config is not None else []
    given += [f"without the scope {scope}" for scope in options.without_scope]
    given += [f"with the client {client} revoked" for client in options.revoke]
    return [*given, *(f"with the auth URL {url}" for url in options.auth_url)]


def _replay(config: Config | None, options: argparse.Namespace) -> Replay | None:
    if config is None:
        if options.without_scope or options.revoke or options.auth_url:
            raise ConfigError(["--without-scope, --revoke and --auth-url need the configuration: add --config"])
        return None
    queries: dict[str, bytes] = {}
    for policy, query in map(parse_auth_url, options.auth_url):
        if policy in queries:
            raise ConfigError([f"--auth-url: policy {policy} is named twice: give one auth URL for each policy"])
        try:
            config.policies.find(policy, query)
        except Rejected as rejected:
            raise ConfigError([f"--auth-url: {rejected.description}"]) from rejected
        queries[policy] = query
    return Replay(config, options.without_scope, options.revoke, queries)
