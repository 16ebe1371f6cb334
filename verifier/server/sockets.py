"""Listening sockets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

BACKLOG = 2048
SEND_BUFFER = 64 * 1024  # bytes that the kernel keeps for a client that does not read; an answer has less than 4 KiB


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _bounded(socket.create_server((host, port), family=family, backlog=BACKLOG))


def listen_unix(path: Path, mode: int = 0o660) -> socket.socket:
    """A listening Unix socket; ``mode``, its file mode, decides which users may connect. Raises OSError.

    A socket that an earlier process left behind is replaced. Anything else at ``path`` is not, nor is a socket on which
    another process listens.
    """
    with _locked(path.parent):
        if path.is_socket():
            _require_abandoned(path)
            path.unlink()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(str(path))
            path.chmod(mode)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    return _bounded(sock)


def remover(path: Path) -> Callable[[], None]:
    """A function that removes the socket that is at ``path`` now, but not another one that has replaced it."""
    own = _identity(path)

    def remove() -> None:
        with contextlib.suppress(OSError), _locked(path.parent):
            if _identity(path) == own:
                path.unlink()

    return remove


def _bounded(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted connections inherit it
    return sock


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Processes that create or remove sockets in ``folder`` do so one after the other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mtime_ns  # a file system may use an inode number again


def _require_abandoned(path: Path) -> None:
    """Raises OSError where a process listens, or where that cannot be known."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # its queue is full
    raise OSError(errno.EADDRINUSE, "another process listens on this socket")
