"""Clients that poll again at once, in one blocking process: the load on a server.

Owns that every client gets every message once and in order. Must not know a peer's protocol.
All clients of a round get the same answer, so it is read once and otherwise only compared.

It never sleeps while it waits for answers. A server's kernel would have to wake it, and the slower
the server, the more often: a share of the cost that clients elsewhere on the network do not cause.
"""

from __future__ import annotations

import json
import select
import socket
import time
from dataclasses import dataclass
from typing import Any

from .control import PREFIX
from .dialects import Answer, Dialect
from .http import CHUNK, TIMEOUT, connect, exchange, make_head, make_tail, read, split


@dataclass(frozen=True, slots=True)
class Block:
    """What some rounds cost.

    Attributes:
        cpu: Seconds of the server's user and system time.
        answers: How many were got.
        deliveries: How many messages were in them.
    """

    cpu: float
    answers: int
    deliveries: int


class Client:
    """One connection, on which one request is held."""

    __slots__ = ("connection", "head", "rest", "upto")

    def __init__(self, connection: socket.socket, head: bytes) -> None:
        self.connection = connection
        self.head = head
        self.rest = b""  # the beginning of an answer
        self.upto = 0  # the last message it got


class Load:
    """Clients of one server.

    Args:
        dialect: How they speak.
        port: The server.
        count: How many they are.
    """

    def __init__(self, dialect: Dialect, port: int, count: int) -> None:
        self._dialect = dialect
        self._port = port
        self._top = 0  # the last message published
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._known: dict[bytes, Answer] = {}  # what the answers of this round hold
        for _ in range(count):
            connection = connect(port)
            head, tail = dialect.enter(lambda r, c=connection: exchange(c, r))  # type: ignore[misc]
            connection.sendall(head + tail)
            self._clients[connection.fileno()] = Client(connection, head)
            self._epoll.register(connection, select.EPOLLIN)

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for client in self._clients.values():
            client.connection.close()

    def control(self, path: str) -> Any:
        """Drive the server, on a connection for this once."""
        with connect(self._port) as connection:
            return self._ask(connection, path)

    def run(self, rounds: int, messages: int) -> Block:
        """Publish, and have all clients answered and held again, that many times.

        Args:
            rounds: How many times.
            messages: How many messages are published at once.
        """
        answers = 0
        with connect(self._port) as control:
            before = self._wait_until_held(control)
            for _ in range(rounds):
                answers += self._round(control, messages)
                after = self._wait_until_held(control)
        return Block(after - before, answers, rounds * messages * len(self._clients))

    def _ask(self, connection: socket.socket, path: str) -> Any:
        return json.loads(exchange(connection, _control(path))[1])

    def _wait_until_held(self, control: socket.socket) -> float:
        """Return the server's CPU time once it has read all requests, which were all sent."""
        while True:
            state = self._ask(control, "state")
            if state["held"] == len(self._clients):
                cpu: float = state["cpu"]
                return cpu

    def _round(self, control: socket.socket, messages: int) -> int:
        self._known.clear()
        control.sendall(_control(f"publish/{self._top + 1}/{messages}"))
        self._top += messages
        missing = len(self._clients)
        answers = 0
        deadline = time.monotonic() + TIMEOUT
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected message {self._top} at {missing} more clients")
            for descriptor, _ in self._epoll.poll(0):
                answer = self._read(self._clients[descriptor])
                if answer is not None:
                    answers += 1
                    missing -= answer.last == self._top
        read(control)
        return answers

    def _read(self, client: Client) -> Answer | None:
        """Read what came, check it and poll again; `None` while the answer is not complete."""
        raw = client.connection.recv(CHUNK)
        if not raw:
            raise ConnectionError("expected an answer, the server closed the connection")
        if client.rest:
            raw, client.rest = client.rest + raw, b""
        answer = self._known.get(raw)
        if answer is None:
            found = split(raw)
            if found is None:
                client.rest = raw
                return None
            answer = self._known[raw] = self._dialect.read(found[1])
        if answer.first != client.upto + 1:
            raise ValueError(f"expected message {client.upto + 1}, got {answer.first}")
        client.upto = answer.last
        client.connection.sendall(client.head + answer.tail)
        return answer


def _control(path: str) -> bytes:
    return make_head("GET", f"{PREFIX}/{path}") + make_tail()
