"""How a load publishes at the server it measures, and asks what that server holds and has used."""

from __future__ import annotations

import json
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from .control import PREFIX, make_text
from .http import CHUNK, exchange, make_head, make_tail, read, split
from .memory import Memory, read_memory
from .servers import Served


@dataclass(frozen=True, slots=True)
class State:
    """How a server is.

    Attributes:
        held: How many clients.
        cpu: Seconds of user and system time it has used.
    """

    held: int
    cpu: float


class Driver(ABC):
    """A server that is driven, always over a connection that is the caller's."""

    @abstractmethod
    def publish(self, connection: socket.socket, first: int, count: int) -> None:
        """Have messages published, at once if the server can, without waiting until they are."""

    @abstractmethod
    def finish(self, connection: socket.socket, count: int) -> None:
        """Wait until that many messages that were asked for are published."""

    @abstractmethod
    def get_state(self, connection: socket.socket) -> State:
        """Ask how the server is: when it answers it has done what came before."""

    @abstractmethod
    def get_memory(self, connection: socket.socket) -> Memory:
        """Ask for the memory of the server's process."""


class Controlled(Driver):
    """A server in Python, by what `control` serves."""

    def publish(self, connection: socket.socket, first: int, count: int) -> None:
        """Ask for it with one request."""
        connection.sendall(_control(f"publish/{first}/{count}"))

    def finish(self, connection: socket.socket, count: int) -> None:
        """Read the answer to that."""
        read(connection)

    def get_state(self, connection: socket.socket) -> State:
        """Ask the server's own clock, which is that of its process."""
        told = self.ask(connection, "state")
        return State(told["held"], told["cpu"])

    def get_memory(self, connection: socket.socket) -> Memory:
        """Ask for it after a collection."""
        told = self.ask(connection, "memory")
        return Memory(told["rss"], told["pss"])

    def ask(self, connection: socket.socket, path: str) -> Any:
        """Ask for something in JSON."""
        return json.loads(exchange(connection, _control(path))[1])


class Nchan(Driver):
    """nginx with nchan: messages are posted, and the kernel tells about its only worker.

    Args:
        worker: That process.
    """

    PATH = "/publish"

    def __init__(self, worker: int) -> None:
        self._worker = worker
        # The clock of another process, exact to the nanosecond where /proc/PID/stat has ticks of
        # 10 ms: clock_getcpuclockid(3) as the kernel encodes it.
        self._clock = (~worker << 3) | 2

    def publish(self, connection: socket.socket, first: int, count: int) -> None:
        """Post each message, all in one piece without waiting for answers in between."""
        head = make_head("POST", self.PATH, "Content-Type: text/plain")
        connection.sendall(b"".join(head + make_tail(make_text(first + n)) for n in range(count)))

    def finish(self, connection: socket.socket, count: int) -> None:
        """Read the answers to all of that, of which the last must be complete."""
        raw = b""
        while raw.count(b"HTTP/1.1 ") < count or not split(raw[raw.rindex(b"HTTP/1.1 ") :]):
            piece = connection.recv(CHUNK)
            if not piece:
                raise ConnectionError(f"expected an answer, nginx closed after {raw[-300:]!r}")
            raw += piece
        if raw.count(b"HTTP/1.1 201") != count:
            raise ValueError(f"expected all to be taken by listeners, got {raw!r:.300}")

    def get_state(self, connection: socket.socket) -> State:
        """Ask what the channel has, and the kernel's clock."""
        request = make_head("GET", self.PATH, "Accept: application/json") + make_tail()
        _, told = exchange(connection, request)
        return State(json.loads(told)["subscribers"], time.clock_gettime(self._clock))

    def get_memory(self, connection: socket.socket) -> Memory:
        """Read it once the server has done what came before."""
        self.get_state(connection)
        return read_memory(self._worker)


def make_driver(served: Served) -> Driver:
    """Return what drives a server."""
    return Controlled() if served.worker is None else Nchan(served.worker)


def _control(path: str) -> bytes:
    return make_head("GET", f"{PREFIX}/{path}") + make_tail()
