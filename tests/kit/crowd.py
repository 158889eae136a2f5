"""Many readers in one thread, and readers that do not read."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from tests.kit.servers import LIMIT, Running, Stream, raw_websocket

CHUNK = 1 << 18  # bytes read at once
SMALL = 4096  # bytes that the system takes for a reader that does not read; it doubles them


@dataclass(frozen=True)
class Way:
    """How readers read: how they connect, and what is around a position in what they read."""

    id: str
    connect: Callable[[Running, int], socket.socket]
    begin: bytes
    end: bytes


EVENTS = Way(
    "events", lambda server, buffer: Stream(server, buffer=buffer).socket, b"\nid: ", b"\n\n"
)
WEBSOCKET = Way(
    "websocket", lambda server, buffer: raw_websocket(server, buffer=buffer), b'"position":"', b'"'
)


class Reader:
    """One connection: what it reads is gapless. `offset` is the last message that it has."""

    def __init__(self, server: Running, way: Way, buffer: int = 0) -> None:
        self.socket = way.connect(server, buffer)
        self.offset = -1
        self._way = way
        self._rest = b""

    def read(self) -> bool:
        """Take what is there; tell whether the connection is still open."""
        data = self.socket.recv(CHUNK)
        begin, end = self._way.begin, self._way.end
        text, at = self._rest + data, 0
        while (found := text.find(begin, at)) >= 0:
            until = text.find(end, found + len(begin))
            if until < 0:
                break
            offset = int(text[found + len(begin) : until].rpartition(b".")[2])
            assert offset == self.offset + 1, f"expected {self.offset + 1}, got {offset}"
            self.offset, at = offset, until
        self._rest = text[at:]
        return bool(data)

    def read_to_the_end(self) -> None:
        """Read until the connection ends."""
        while self.read():
            pass


class Crowd:
    """Readers that all follow one channel.

    Args:
        server: Where.
        way: How.
        count: How many.
    """

    def __init__(self, server: Running, way: Way, count: int) -> None:
        self._poll = select.epoll()
        server.connections.callback(self._poll.close)
        self._readers: dict[int, Reader] = {}
        for _ in range(count):
            reader = Reader(server, way)
            self._readers[reader.socket.fileno()] = reader
            self._poll.register(reader.socket, select.EPOLLIN)

    def leave(self) -> None:
        for reader in self._readers.values():
            reader.socket.close()

    def read(self, offset: int) -> None:
        """Read until everybody has everything up to there."""
        behind = {number for number, one in self._readers.items() if one.offset < offset}
        while behind:
            ready = self._poll.poll(LIMIT)
            assert ready, f"{len(behind)} wait for message {offset}"
            for number, _ in ready:
                reader = self._readers[number]
                assert reader.read(), "a reader was cut off"
                if reader.offset >= offset:
                    behind.discard(number)
