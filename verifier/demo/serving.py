"""Small servers in threads of this process."""

import contextlib
import secrets
import socket
import threading
import time
from typing import Self

import uvicorn
from starlette.types import ASGIApp


def bind(port: int = 0) -> socket.socket:
    """A socket that listens on the port (0: any free one) of the loopback address.

    Raises:
        OSError: the port is taken.
    """
    # Bound is not enough: two sockets with SO_REUSEADDR share a port until one of them listens.
    return socket.create_server(("127.0.0.1", port), backlog=512)


def free_port() -> int:
    """A port that is free now, for a process that binds it itself, perhaps some time later.

    It is none of those that outgoing connections take (`net.ipv4.ip_local_port_range`), and none that was given before.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        if port not in _given:
            _given.add(port)
            with contextlib.suppress(OSError), bind(port):
                return port


_given: set[int] = set()


def port_of(bound: socket.socket) -> int:
    """The port that a socket is bound to."""
    return int(bound.getsockname()[1])


class Background:
    """`with Background(app):` the ASGI app answers on `.url` inside, and its socket is closed after it.

    `websockets` needs the package wsproto; without it, a WebSocket's handshake is an ordinary request.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket | None = None, *, websockets: bool = False) -> None:
        self._listener = listener or bind()
        self.address = f"127.0.0.1:{port_of(self._listener)}"
        self.url = f"http://{self.address}"
        # nginx keeps connections for 60 s: a server that closes them earlier costs it requests.
        config = uvicorn.Config(
            app,
            ws="wsproto" if websockets else "none",
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            timeout_keep_alive=75,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    @property
    def alive(self) -> bool:
        """Whether the thread still serves."""
        return self._thread.is_alive()

    @property
    def log(self) -> str:
        """Empty: a thread logs to our own standard error."""
        return ""
