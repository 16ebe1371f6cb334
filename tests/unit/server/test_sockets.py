"""Listening sockets: addresses, and Unix sockets that other processes left, hold or replaced."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from verifier.server.sockets import SEND_BUFFER, listen, listen_unix, remover


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_socket_listens_on_its_host(host: str, family: socket.AddressFamily) -> None:
    with listen(host, 0) as sock:
        assert sock.family == family
        assert sock.getsockname()[0] == host
        socket.create_connection(sock.getsockname()[:2]).close()


def test_a_port_that_is_taken_is_an_error() -> None:
    with listen("127.0.0.1", 0) as sock, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", sock.getsockname()[1])


def test_the_kernel_keeps_little_for_a_client_that_does_not_read() -> None:
    with listen("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname()), sock.accept()[0] as accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verifier.sock"


def accepts(path: Path, listening: socket.socket) -> bool:
    """Whether a client of ``path`` reaches ``listening``."""
    listening.setblocking(False)
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(str(path))
        listening.accept()[0].close()
        return True
    return False


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_the_file_mode_of_a_unix_socket_is_as_given(path: Path, mode: int) -> None:
    with listen_unix(path, mode):
        assert path.stat().st_mode & 0o777 == mode


def test_a_unix_socket_that_was_left_behind_is_replaced(path: Path) -> None:
    listen_unix(path).close()
    with listen_unix(path) as listening:
        assert accepts(path, listening)


@pytest.mark.parametrize("full", [False, True], ids=["free queue", "full queue"])
def test_a_unix_socket_on_which_a_process_listens_is_not_replaced(path: Path, full: bool) -> None:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(socket.socket(socket.AF_UNIX))
        running.bind(str(path))
        running.listen(0)
        if full:
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(OSError, match="another process listens on this socket"):
            listen_unix(path)
        running.accept()[0].close()  # the client that filled the queue, or the probe
        assert accepts(path, running)


def test_a_file_is_not_replaced_by_a_unix_socket(path: Path) -> None:
    path.write_text("text")

    with pytest.raises(OSError, match="in use"):
        listen_unix(path)
    assert path.read_text() == "text"


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        listen_unix(tmp_path / "missing" / "verifier.sock")

    assert Path(raised.value.filename) == tmp_path / "missing"


@pytest.fixture
def remove(path: Path) -> Callable[[], None]:
    """What removes the socket of a process that listens no more."""
    with listen_unix(path):
        return remover(path)


def test_a_unix_socket_is_removed(path: Path, remove: Callable[[], None]) -> None:
    remove()
    assert not path.exists()
    remove()


def test_the_socket_of_a_successor_is_not_removed(path: Path, remove: Callable[[], None]) -> None:
    with listen_unix(path) as successor:
        remove()
        assert accepts(path, successor)


def test_a_file_that_replaced_the_socket_is_not_removed(path: Path, remove: Callable[[], None]) -> None:
    os.unlink(path)
    path.write_text("text")
    remove()

    assert path.read_text() == "text"
