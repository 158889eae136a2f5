"""A proxy that cuts a connection after so many bytes of what the server says."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from tests.serving import Address
from tests.streams import reset


class CuttingPipe:
    """Passes bytes both ways, one connection at a time, and resets it at the limit.

    Attributes:
        limit: How many bytes of the server pass on one connection; `None` lets all pass.
        address: Where clients connect.
    """

    def __init__(self, upstream: Address) -> None:
        self.limit: int | None = None
        self._upstream = upstream
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listening.getsockname())
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = self._upstream.connect()
                with contextlib.suppress(OSError):  # one of them has gone
                    self._pass(client, server)
                reset(client)
                reset(server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        left = self.limit
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for one, other in ((client, server), (server, client)):
                if one not in ready:
                    continue
                data = one.recv(65536)
                if not data:
                    return
                if one is server and left is not None:
                    data = data[:left]
                    left -= len(data)
                other.sendall(data)
            if left == 0:
                return

    @contextlib.contextmanager
    def run(self) -> Iterator[CuttingPipe]:
        self._thread.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._thread.join(10)
