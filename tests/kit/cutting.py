"""A proxy that cuts a connection after so many bytes of what the server says."""

from __future__ import annotations

import contextlib
import select
import socket

from tests.kit.faults import Proxy
from tests.kit.serving import Address
from tests.kit.streams import reset


class CuttingPipe(Proxy):
    """Passes bytes both ways, one connection at a time, and resets it at the limit.

    Attributes:
        limit: How many bytes of the server pass on one connection; `None` lets all pass.
    """

    def __init__(self, upstream: Address) -> None:
        super().__init__(upstream)
        self.limit: int | None = None

    def accept(self, client: socket.socket) -> None:
        server = self.upstream.connect()
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
