"""Clients of the old protocol, in which a registration names channels."""

from __future__ import annotations

import socket

from asgi_comet import ClientProcess, Comet
from tests.kit.processes import process_of
from tests.kit.serving import COMET, Address, Answer, Held, Tab


def read_all(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


class OldPage:
    """A page that speaks the old protocol at its client process."""

    def __init__(self, comet: Comet, server: Address) -> None:
        self.tab = Tab(server)
        self.process: ClientProcess = process_of(comet, self.tab)

    def register(self, *names: str, number: int | str | None = None) -> Answer:
        body = "registration=" + "%0A".join(names)
        if number is not None:
            body += f"&number={number}"
        return self.tab.post(f"{self.tab.url}/poll", body, COMET)

    def hold(self, *names: str, number: int | None = None) -> Held:
        return Held(lambda: self.register(*names, number=number))
