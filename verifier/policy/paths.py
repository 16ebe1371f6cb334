"""Paths as nginx normalises them, and a refusal wherever two parsers could disagree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

MAX_PATH = 8192  # bytes
MAX_SEGMENTS = 256


class AmbiguousPathError(ValueError):
    """Two parsers could read the path, or the URL around it, differently. The text says why."""


class Target(NamedTuple):
    """A path as nginx routes by it (``$uri``), and as another parser behind nginx might read it."""

    path: str
    """Decoded once, dot segments resolved, slashes merged."""
    other_readings: tuple[str, ...] = ()
    """The same with dots left in place, with slashes unmerged, or without path parameters, where that differs."""
    rare_readings: tuple[str, ...] = ()
    """For parsers that do not decode what needs no encoding (``%61``), or that decode before they look for a ``?``."""


# The host is empty for HTTP/1.0 without Host; rules do not look at it.
_AUTHORITY = re.compile(rb"https?://(?:(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?)?(?=/)")
# Nothing to decode, to resolve or to merge, and no path parameter: nearly every request.
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*/?")
# Escapes of what RFC 3986 section 3.3 does not allow in a path as it is, and of dots, which all parsers know encoded.
_NEEDED_ESCAPE = re.compile("%(?=[01]|2[0235EFef]|3[CEFcef]|5[B-Eb-e]|60|7[BCDFbcdf]|[89A-Fa-f])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ENCODED_AGAIN = re.compile("%[0-9A-Fa-f]{2}")
_DOT_SEGMENT = re.compile(r"/\.\.?(?![^/])")
_PARAMETERS = re.compile(r";[^/]*")
_QUERY = re.compile("[?#].*", re.DOTALL)

_REFUSED_RAW = (
    (re.compile(r"\\"), "it holds a backslash"),
    (re.compile(" "), "it holds a raw space"),
    (re.compile("%(?![0-9A-Fa-f]{2})"), "it holds a percent sign that encodes nothing"),
    (re.compile("%(?:2[Ff]|5[Cc])"), "it holds an encoded slash or backslash"),
)
_REFUSED_DECODED = (
    (_CONTROL, "it holds a control character"),
    (_ENCODED_AGAIN, "it is encoded twice"),
    (re.compile(r"/\.\.?;"), "it has a dot segment with parameters"),
)


def parse_url(url: bytes) -> Target:
    """The path of ``$scheme://$http_host$request_uri``. Raises AmbiguousPathError.

    The host is whatever the client sent: one that holds ``?``, ``#``, ``@`` or a backslash would move the place
    where the path begins.
    """
    authority = _AUTHORITY.match(url)
    if authority is None or int(authority[1] or 0) > 65535:
        raise AmbiguousPathError("the URL's host is not a plain host with an optional port")
    if b"#" in url:
        raise AmbiguousPathError("the URL holds a raw #")
    return normalise(url[authority.end() :].partition(b"?")[0])


def normalise(raw: bytes) -> Target:
    """Read a raw path, without query, as nginx does. Raises AmbiguousPathError.

    Follows ngx_http_parse_complex_uri with merge_slashes on.
    """
    if len(raw) > MAX_PATH or raw.count(b"/") > MAX_SEGMENTS:
        raise AmbiguousPathError(f"it is longer than {MAX_PATH} bytes or {MAX_SEGMENTS} segments")
    if _PLAIN.fullmatch(raw):
        return Target(raw.decode("ascii") or "/")
    text = raw.decode("latin-1")
    path = _decode(text)
    resolved = _resolve(path)
    readings = {path, *_without_parameters(path)}
    if "%3b" in text.lower():  # some take only a raw semicolon for the start of a parameter
        readings |= {_unescape(reading.replace("%", r"\x")) for reading in _without_parameters(text)}
    if any(reading.startswith("//") for reading in readings):
        raise AmbiguousPathError("it begins with //, which URL parsers read as a host")
    rare: set[str] = set()
    undecoded = _unescape(_NEEDED_ESCAPE.sub(r"\\x", text)) if "%" in text else path
    if undecoded != path:
        rare = {undecoded, _resolve(undecoded), *_without_parameters(undecoded)}
    if "?" in path or "#" in path:
        rare |= {_QUERY.sub("", reading) for reading in (resolved, *readings, *rare)}
    return Target(resolved, tuple(readings - {resolved}), tuple(rare - readings - {resolved}))


def _refuse(text: str, refused: Iterable[tuple[re.Pattern[str], str]]) -> None:
    for pattern, why in refused:
        if pattern.search(text):
            raise AmbiguousPathError(why)


def _decode(raw: str) -> str:
    _refuse(raw, _REFUSED_RAW)
    try:
        path = _unescape(raw.replace("%", r"\x"))
    except UnicodeDecodeError:
        raise AmbiguousPathError("it is not UTF-8") from None
    _refuse(path, _REFUSED_DECODED)
    dots = len(_DOT_SEGMENT.findall(path))
    if dots and ";" in path:
        raise AmbiguousPathError("it has path parameters together with a dot segment")
    if dots > len(_DOT_SEGMENT.findall(raw)) > 0:  # some resolve the raw ones before they decode the others
        raise AmbiguousPathError("it has encoded and raw dot segments together")
    return path


def _unescape(escaped: str) -> str:
    r"""UTF-8 in latin-1, with escapes written ``\x41``: this codec takes a tenth of the time of ``unquote``."""
    return escaped.encode("latin-1").decode("unicode_escape").encode("latin-1").decode("utf-8")


def _without_parameters(path: str) -> set[str]:
    """The path without parameters (RFC 3986 section 3.3), which some cut off, with slashes unmerged and merged."""
    if ";" not in path:
        return set()
    without = _PARAMETERS.sub("", path)
    return {without, _merge(without)}


def _merge(path: str) -> str:
    return re.sub("//+", "/", path)


def _resolve(path: str) -> str:
    """Merge slashes, or resolve dot segments (RFC 3986 section 5.2.4); which of the two comes first is ambiguous."""
    merged = _merge(path)
    if not _DOT_SEGMENT.search(path):
        return merged
    if merged != path:
        raise AmbiguousPathError("it has an empty segment together with a dot segment")
    segments = path.split("/")
    resolved: list[str] = []
    for segment in segments[1:]:
        if segment == "..":
            if not resolved:
                raise AmbiguousPathError("it climbs above the root")
            resolved.pop()
        elif segment != ".":
            resolved.append(segment)
    if segments[-1] in (".", ".."):
        resolved.append("")
    return "/" + "/".join(resolved)


# Syntax of other routers and of regular expressions, and what it is here.
_FOREIGN_SYNTAX = [
    (re.compile(r"/:|\{[^/]*\}|<[^/]*>"), "write * for a segment with any value, ** for any number of segments"),
    (
        re.compile(r"\[[^/\]]*\][+?{]|\[[^/\]]*[^/\]]-[^/\]]|\[\^|\([^)]*\||\\"),
        "a path is no regular expression: * is one segment, ** any number; write a rule for each alternative",
    ),
    (re.compile(r"\?"), "the query is no part of the path: a rule cannot look at it"),
]


class PathPattern:
    """A rule's path: ``*`` is one segment, ``**`` any number, none included. Raises ValueError on a bad one."""

    def __init__(self, pattern: str) -> None:
        if not pattern.startswith("/"):
            raise ValueError("must begin with /")
        for syntax, hint in _FOREIGN_SYNTAX:
            if syntax.search(pattern):
                raise ValueError(hint)
        segments = pattern[1:].split("/")
        if any("*" in segment and segment not in ("*", "**") for segment in segments):
            raise ValueError("* and ** stand for whole segments: write /a/*/b or /a/**")
        literal = "/".join(segment for segment in segments if "*" not in segment)
        if _CONTROL.search(literal) or _ENCODED_AGAIN.search(literal):
            raise ValueError("must be written decoded, as nginx's $uri is: a space, not %20")
        if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
            raise ValueError("no request would match: dots are resolved and slashes merged before it is looked at")
        self.text = pattern
        self.example = re.sub(r"\*+", "x", pattern)
        """A path that matches."""
        self._regex = re.compile(_to_regex(segments), re.DOTALL)

    def matches(self, path: str) -> bool:
        """Whether a decoded path matches."""
        return self._regex.fullmatch(path) is not None


def _to_regex(segments: list[str]) -> str:
    """Each ``**`` but the last takes the fewest segments and keeps them (atomic groups): linear on any path."""
    runs: list[str] = [""]
    for segment in segments:
        if segment == "**":
            if runs[-1] or len(runs) == 1:  # two in a row are one
                runs.append("")
        else:
            runs[-1] += "/[^/]+" if segment == "*" else "/" + re.escape(segment)
    if len(runs) == 1:
        return runs[0]
    last = "(?=/).*" + runs[-1] if runs[-1] else "(?:/.*)?"
    return runs[0] + "".join(f"(?>(?=/).*?{run}(?![^/]))" for run in runs[1:-1]) + last
