"""Proxies that misbehave, and one that cuts a connection after so many bytes of the answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

from tests.kit.serving import Address
from tests.kit.streams import LINGER


class Proxy(ABC):
    """Stands between clients and a server while the context of `run` lasts.

    Args:
        upstream: The server.

    Attributes:
        address: Where clients connect.
    """

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = Address(*self._listening.getsockname())
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                self.accept(client)

    @abstractmethod
    def accept(self, client: socket.socket) -> None:
        """Take a connection from a client."""

    @contextlib.contextmanager
    def run(self) -> Iterator[Self]:
        self._thread.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._thread.join(10)
            self.closed()

    def closed(self) -> None:  # noqa: B027 - most proxies have nothing of their own to free
        """Nobody connects any more."""


class CuttingProxy(Proxy):
    """Passes requests on, and answers only up to `limit` bytes; then it resets the connection.

    Attributes:
        limit: How many bytes of an answer pass; `None` lets all pass.
        passed: How many bytes of the last answer have passed.
    """

    def __init__(self, upstream: Address) -> None:
        super().__init__(upstream)
        self.limit: int | None = None
        self.passed = 0

    def accept(self, client: socket.socket) -> None:
        with client, self.upstream.connect() as server:
            self._pass(client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        server.sendall(_read_message(client))
        self.passed = 0
        answer = _read_message(server)
        allowed = answer if self.limit is None else answer[: self.limit]
        self.passed = len(allowed)  # before the client can know
        client.sendall(allowed)
        if len(allowed) < len(answer):  # a reset, not a polite end
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)


def _read_message(connection: socket.socket) -> bytes:
    """Read one HTTP message with a content length."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536)
    head, _, body = raw.partition(b"\r\n\r\n")
    (length,) = (
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
