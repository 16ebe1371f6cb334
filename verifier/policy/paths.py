"""Paths as nginx normalises them, and a refusal wherever two parsers could disagree."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes


class AmbiguousPathError(ValueError):
    """The path, or the URL around it, can be read in two ways. The text says which."""


class Target(NamedTuple):
    """A path as nginx routes by it (``$uri``), and as a less careful parser behind nginx might read it."""

    path: str
    """Decoded once, dot segments resolved, slashes merged."""
    other_readings: tuple[str, ...] = ()
    """The same with dots left in place, with slashes unmerged, or without path parameters, where that differs."""


_AUTHORITY = re.compile(rb"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?=/)")
# Nothing to decode, to resolve or to merge, and no path parameter: nearly every request.
_SEGMENT = rb"[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*"
_PLAIN = re.compile(rb"(?:/" + _SEGMENT + rb")*/?")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ENCODED_AGAIN = re.compile("%[0-9A-Fa-f]{2}")
_DOTS_WITH_PARAMETERS = re.compile(r"/\.\.?;")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile("/{2,}")


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
    if _PLAIN.fullmatch(raw):
        return Target(raw.decode("ascii") or "/")
    path = _decode(raw)
    resolved = _resolve(path)
    readings = {path, resolved}
    if ";" in path:  # RFC 3986 section 3.3: some servers cut parameters off each segment, before they resolve dots
        readings.add(_resolve(_PARAMETERS.sub("", path)))
    return Target(resolved, tuple(sorted(readings - {resolved})))


def _decode(raw: bytes) -> str:
    if b"\\" in raw:
        raise AmbiguousPathError("it holds a backslash")
    if _BAD_PERCENT.search(raw):
        raise AmbiguousPathError("it holds a percent sign that encodes nothing")
    lower = raw.lower()
    if b"%2f" in lower or b"%5c" in lower:
        raise AmbiguousPathError("it holds an encoded slash or backslash")
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise AmbiguousPathError("it is not UTF-8") from None
    if _CONTROL.search(path):
        raise AmbiguousPathError("it holds a control character")
    if _ENCODED_AGAIN.search(path):
        raise AmbiguousPathError("it is encoded twice")
    if _DOTS_WITH_PARAMETERS.search(path):
        raise AmbiguousPathError("it has a dot segment with parameters")
    return path


def _resolve(path: str) -> str:
    """Merge slashes, or resolve dot segments (RFC 3986 section 5.2.4); which of the two comes first is ambiguous."""
    merged = _SLASHES.sub("/", path)
    segments = path.split("/")
    if "." not in segments and ".." not in segments:
        return merged
    if merged != path:
        raise AmbiguousPathError("it has an empty segment together with a dot segment")
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


class PathPattern:
    """A rule's path: ``*`` is one segment, ``**`` any number, none included. Raises ValueError on a bad one."""

    def __init__(self, pattern: str) -> None:
        if not pattern.startswith("/"):
            raise ValueError("must begin with /")
        segments = pattern[1:].split("/")
        if any("*" in segment and segment not in ("*", "**") for segment in segments):
            raise ValueError("* and ** stand for whole segments: write /a/*/b or /a/**")
        literal = "/".join(segment for segment in segments if "*" not in segment)
        if _CONTROL.search(literal) or _ENCODED_AGAIN.search(literal) or "\\" in literal:
            raise ValueError("must be written decoded, as nginx's $uri is: a space, not %20")
        if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
            raise ValueError("no request would match: dots are resolved and slashes merged before it is looked at")
        self.text = pattern
        self._match = re.compile(_to_regex(segments)).fullmatch

    def __reduce__(self) -> tuple[type[PathPattern], tuple[str]]:
        return PathPattern, (self.text,)

    def matches(self, path: str) -> bool:
        """Whether a decoded path matches."""
        return self._match(path) is not None


def _to_regex(segments: list[str]) -> str:
    """Each ``**`` but the last takes the fewest segments and keeps them (atomic groups): linear on any path."""
    runs: list[str] = [""]
    for segment in segments:
        if segment == "**":
            runs.append("")
        else:
            runs[-1] += "/[^/]+" if segment == "*" else "/" + re.escape(segment)
    if len(runs) == 1:
        return runs[0]
    any_number = "(?:/[^/]*)*"
    return runs[0] + "".join(f"(?>{any_number}?{run}(?![^/]))" for run in runs[1:-1]) + any_number + runs[-1]
