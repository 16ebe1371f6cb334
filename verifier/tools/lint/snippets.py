"""Rules about nginx directives in snippets, and about ``satisfy``: what takes the guard away without an annotation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Object, Place, text

# The tokens of nginx's configuration: comments, quoted strings, punctuation, words with escapes and ${variables}.
_TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|\s+)|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'|(?P<end>[;{}])"""
    r"""|(?P<word>(?:\\.|\$\{[^}]*\}|[^\s;{}\\])+)|(?P<rest>.)""",
    re.DOTALL,
)
_SET_HEADER = ("proxy_set_header", "grpc_set_header", "more_set_input_headers")


_SATISFY = "a request needs only one of token, address or password: it may reach the API without a token"


def of_ingress(ingress: Object, is_guarded: bool, is_shared: bool, known: Known) -> Iterator[Finding]:
    """Every directive, and every ``satisfy: any``, that takes a guard away.

    ``is_shared``: a guard is on one of the hosts. A server snippet is in force for all Ingresses of its hosts.
    """
    for key in ingress.mapping("metadata", "annotations"):
        place: Place = ("metadata", "annotations", key)
        kind = text(key).rpartition("/")[2]
        if kind == "satisfy" and is_guarded and ingress.text(*place).strip().lower() == "any":
            yield ingress.trap("satisfy-any", place, _SATISFY)
        if "snippet" in kind and (is_guarded or (kind.startswith("server") and is_shared)):
            yield from of_text(ingress, place, ingress.text(*place), known)


def of_text(one: Object, place: Place, snippet: str, known: Known) -> Iterator[Finding]:
    """The same in one snippet."""
    verified = verified_headers(snippet)
    for directive in _directives(snippet):
        name, values = directive[0], directive[1:]
        write = f"(nothing: delete `{' '.join(directive)}` from the {str(place[-1]).rpartition('/')[2]})"
        if name == "satisfy" and [value.lower() for value in values] == ["any"]:
            yield one.finding("satisfy-any", place, _SATISFY, write)
        elif name == "auth_request" and values == ["off"]:
            why = "switches the guard off: requests reach the API without a token"
            yield one.finding("auth-request-off", place, why, write)
        elif name in _SET_HEADER:
            sent = [value.partition(":")[0].strip().lower().replace("_", "-") for value in values]
            if name != "more_set_input_headers":
                sent = [] if values[1:] == [verified.get(sent[0] if sent else "")] else sent[:1]
            mapped = {header.lower() for header in known.headers}
            forged = [header for header in sent if header.startswith("x-m2m-") or header in mapped]
            if forged:
                why = f"sets {', '.join(forged)} itself: the API receives another value than the verifier's"
                yield one.finding("forgeable-header", place, why, write)


def set_headers(snippet: str) -> dict[str, str]:
    """The request headers that a snippet sets, in lower case, and their values."""
    found = (words for words in _directives(snippet) if words[0] == "proxy_set_header" and len(words) == 3)
    return {name.lower(): value for _, name, value in found}


def verified_headers(snippet: str) -> dict[str, str]:
    """Those of them that it reads from the verifier's answer by ``auth_request_set``."""
    read = {words[1]: words[2] for words in _directives(snippet) if words[0] == "auth_request_set" and len(words) == 3}
    return {
        name: value
        for name, value in set_headers(snippet).items()
        if read.get(value) == f"$upstream_http_{name.replace('-', '_')}"
    }


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
