"""nginx's own reading of a request target: an independent implementation of its documented behaviour."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes


def nginx_uri(target: bytes) -> bytes | None:
    """What nginx chooses a ``location`` by (``$uri``, with merge_slashes on); None where it answers 400.

    It rewrites the path until no dot segment is left; the verifier keeps a stack of segments.
    """
    raw = re.split(b"[?#]", target, maxsplit=1)[0]
    if re.search(b"%(?![0-9A-Fa-f]{2})|%00", raw):
        return None
    path = re.sub(b"/+", b"/", unquote_to_bytes(raw))
    path = re.sub(rb"/(?:\.(?:/|\Z))+", b"/", path)
    while climb := re.search(rb"/\.\.(?:/|\Z)", path):
        if climb.start() == 0:  # above the root
            return None
        path = path[: path.rindex(b"/", 0, climb.start()) + 1] + path[climb.end() :]
    return path


def matches(pattern: str, path: str) -> bool:
    """Whether a rule's path matches: ``*`` is one segment, ``**`` any number, none included."""
    regex = re.escape(pattern).replace(r"/\*\*", "(?:/[^/]*)*").replace(r"/\*", "/[^/]+")
    return re.fullmatch(regex, path) is not None
