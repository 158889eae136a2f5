"""Clients of one server in one blocking process: the load on it.

Owns that every client gets every message once and in order. Must not know a peer's protocol.
All clients of a round read the same bytes, so these are decoded once and otherwise only compared.

It never sleeps while it waits for messages. A server's kernel would have to wake it, and the slower
the server, the more often: a share of the cost that clients elsewhere on the network do not cause.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

from .dialects import Answer, Dialect
from .drivers import Controlled, State, make_driver
from .http import CHUNK, TIMEOUT, connect
from .memory import Memory
from .samples import Block
from .servers import Served


class Client:
    """One connection, on which a request is held or messages come as they are."""

    __slots__ = ("connection", "head", "rest", "upto")

    def __init__(self, connection: socket.socket, opened: tuple[bytes, bytes], upto: int) -> None:
        self.connection = connection
        self.head, self.rest = opened  # what its requests begin with; what is not complete yet
        self.upto = upto  # the last message it got


class Load:
    """Clients of one server; none before `open`.

    Args:
        dialect: How they speak.
        served: The server.
    """

    def __init__(self, dialect: Dialect, served: Served) -> None:
        self._dialect = dialect
        self._port = served.port
        self._driver = make_driver(served)
        self._top = 0  # the last message published
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._known: dict[bytes, Answer] = {}  # what the bytes of this round hold

    def open(self, count: int) -> None:
        """Connect more clients; returns when the server has them all."""
        for _ in range(count):
            connection = connect(self._port)
            client = Client(connection, self._dialect.open(connection), self._top)
            self._clients[connection.fileno()] = client
            self._epoll.register(connection, select.EPOLLIN)
        with connect(self._port) as control:
            self._wait_until_held(control)

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for client in self._clients.values():
            client.connection.close()

    def control(self, path: str) -> Any:
        """Drive the server, which must be one in Python, on a connection for this once."""
        assert isinstance(self._driver, Controlled)
        with connect(self._port) as connection:
            return self._driver.ask(connection, path)

    def get_memory(self) -> Memory:
        """Ask for the server's memory."""
        with connect(self._port) as control:
            return self._driver.get_memory(control)

    def run(self, rounds: int, messages: int) -> Block:
        """Publish and read until all clients have everything, that many times.

        Args:
            rounds: How many times.
            messages: How many messages are published at once.
        """
        answers = 0
        delays: list[float] = []
        self._read_all()  # comments that came in the meantime
        with connect(self._port) as control:
            before = self._wait_until_held(control)
            for _ in range(rounds):
                answers += self._round(control, messages, delays)
                if self._dialect.again:
                    self._wait_until_held(control)
            after = self._wait_until_held(control)
        deliveries = rounds * messages * len(self._clients)
        return Block(after.cpu - before.cpu, answers, deliveries, delays)

    def _wait_until_held(self, control: socket.socket) -> State:
        """Return the server's state once it holds all clients, which have sent all they do."""
        deadline = time.monotonic() + TIMEOUT
        while (state := self._driver.get_state(control)).held != len(self._clients):
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {len(self._clients)} clients, got {state.held}")
        return state

    def _round(self, control: socket.socket, messages: int, delays: list[float]) -> int:
        self._known.clear()
        began = time.perf_counter()
        self._driver.publish(control, self._top + 1, messages)
        self._top += messages
        missing = len(self._clients)
        answers = 0
        while missing:
            if time.perf_counter() > began + TIMEOUT:
                raise TimeoutError(f"expected message {self._top} at {missing} more clients")
            for descriptor, _ in self._epoll.poll(0):
                answer = self._read(self._clients[descriptor])
                if answer is not None:
                    answers += 1
                    if answer.last == self._top:
                        missing -= 1
                        delays.append(time.perf_counter() - began)
        self._driver.finish(control, messages)
        return answers

    def _read_all(self) -> None:
        while found := self._epoll.poll(0):
            for descriptor, _ in found:
                if self._read(self._clients[descriptor]) is not None:
                    raise ValueError("expected no message before one is published")

    def _read(self, client: Client) -> Answer | None:
        """Read what came, check it, and ask for more; `None` while it holds no whole message."""
        raw = client.connection.recv(CHUNK)
        if not raw:
            raise ConnectionError("expected messages, the server closed the connection")
        if client.rest:
            raw, client.rest = client.rest + raw, b""
        answer = self._known.get(raw)
        if answer is None:
            answer = self._dialect.decode(raw)
            if answer is None:
                client.rest = raw
                return None
            self._known[raw] = answer
        if not answer.last:
            return None
        if answer.first != client.upto + 1:
            raise ValueError(f"expected message {client.upto + 1}, got {answer.first}")
        client.upto = answer.last
        if answer.tail:
            client.connection.sendall(client.head + answer.tail)
        return answer
