"""Rules about nginx directives in snippets, and about ``satisfy``: what takes the guard away without an annotation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Ingress

# The tokens of nginx's configuration: comments, quoted strings, punctuation, words with escapes and ${variables}.
_TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|\s+)|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'|(?P<end>[;{}])"""
    r"""|(?P<word>(?:\\.|\$\{[^}]*\}|[^\s;{}\\])+)|(?P<rest>.)""",
    re.DOTALL,
)
_SET_HEADER = ("proxy_set_header", "grpc_set_header", "more_set_input_headers")


def findings(ingresses: Sequence[Ingress], known: Known) -> Iterator[Finding]:
    """Every directive, and every ``satisfy: any``, that takes a guard away."""
    guarded_hosts = {host for ingress in ingresses if ingress.guarded for host in ingress.hosts}
    for ingress in ingresses:
        if ingress.guarded and ingress.annotation("satisfy").strip().lower() == "any":
            yield ingress.trap("satisfy-any", "satisfy", _SATISFY)
        for key, snippet in ingress.annotations.items():
            kind = key.rpartition("/")[2]
            # A server snippet is in force for all Ingresses of its hosts.
            shared = kind.startswith("server") and not guarded_hosts.isdisjoint(ingress.hosts)
            if "snippet" in kind and (ingress.guarded or shared):
                for directive in _directives(snippet):
                    yield from _directive(ingress, key, directive, known)


_SATISFY = "a request needs only one of token, address or password: it may reach the API without a token"


def _directive(ingress: Ingress, key: str, directive: list[str], known: Known) -> Iterator[Finding]:
    name, values = directive[0], directive[1:]
    write = f"(nothing: delete `{' '.join(directive)}` from the {key.rpartition('/')[2]})"
    if name == "satisfy" and [value.lower() for value in values] == ["any"]:
        yield ingress.finding("satisfy-any", key, _SATISFY, write)
    elif name == "auth_request" and values == ["off"]:
        why = "switches the guard off: requests reach the API without a token"
        yield ingress.finding("auth-request-off", key, why, write)
    elif name in _SET_HEADER:
        sent = [value.partition(":")[0].strip().lower().replace("_", "-") for value in values]
        if name != "more_set_input_headers":
            sent = sent[:1]
        mapped = {header.lower() for header in known.headers}
        forged = [header for header in sent if header.startswith("x-m2m-") or header in mapped]
        if forged:
            why = f"sets {', '.join(forged)} itself: the API receives another value than the verifier's"
            yield ingress.finding("forgeable-header", key, why, write)


def _directives(snippet: str) -> Iterator[list[str]]:
    """The directives of a snippet, at each depth, as lists of words."""
    words: list[str] = []
    for token in _TOKEN.finditer(snippet):
        if token["end"]:
            if words:
                yield words
            words = []
        elif not token["skip"]:
            words.append(next(part for part in token.group("double", "single", "word", "rest") if part is not None))
    if words:
        yield words
