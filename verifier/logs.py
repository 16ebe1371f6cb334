"""The program's own log, on stderr."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure(level: int) -> None:
    """Log from ``level`` on."""
    logging.basicConfig(stream=sys.stderr, level=level, format=FORMAT)
    # uvicorn's warnings are about requests: one line for each. The others write a line for each request at INFO.
    for name, least in (("uvicorn", logging.ERROR), ("httpx", logging.WARNING), ("httpcore", logging.WARNING)):
        logging.getLogger(name).setLevel(least)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
