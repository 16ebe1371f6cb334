"""Reads request targets, one on each line, and prints how Python's parsers read the path of each, separated by tabs."""

import contextlib
import posixpath
import re
import sys
from urllib.parse import unquote, urljoin, urlparse, urlsplit

BASE = "http://api.example/"
PARSERS = [
    lambda target: urlsplit(target).path,
    lambda target: urlparse(target).path,  # without the parameters of the last segment
    lambda target: urlsplit(urljoin(BASE, target)).path,
    lambda target: urlsplit(BASE.rstrip("/") + target).path,
    lambda target: target.partition("?")[0],
]
VIEWS = [
    lambda path: path,
    unquote,
    posixpath.normpath,
    lambda path: posixpath.normpath(unquote(path)),
    lambda path: re.sub(";[^/]*", "", path),
    lambda path: unquote(re.sub(";[^/]*", "", path)),
]

for line in sys.stdin:
    readings = []
    for parse in PARSERS:
        for view in VIEWS:
            with contextlib.suppress(ValueError):  # the parser refuses the target
                readings.append(view(parse(line.removesuffix("\n"))))
    print("\t".join(readings))
