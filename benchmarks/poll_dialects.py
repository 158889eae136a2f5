"""How the peers of long polling are spoken: what a client says to be held, what an answer holds.

Owns no connections and measures nothing. A request is a head, which is a client's own, and a tail,
which all clients at the same place share. All say the same headers where the protocol allows it.
"""

from __future__ import annotations

import json
import socket
from abc import abstractmethod
from collections.abc import Callable
from urllib.parse import unquote

from asgi_comet.protocol.events import decode_answer, encode_poll

from .dialects import COOKIE, Answer, Dialect, span
from .http import exchange, make_head, make_tail, split

Ask = Callable[[bytes], tuple[bytes, bytes]]  # a request to the headers and body of its answer

JSON = "Content-Type: application/json"


class Poll(Dialect):
    """A way to poll."""

    again = True

    def open(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Send the first request that is held."""
        head, tail = self.enter(lambda request: exchange(connection, request))
        connection.sendall(head + tail)
        return head, b""

    def decode(self, raw: bytes) -> Answer | None:
        """Read an answer once it is complete."""
        found = split(raw)
        return self.read(found[1]) if found else None

    @abstractmethod
    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Do what comes before the first hold, and return the head and first tail to hold with."""

    @abstractmethod
    def read(self, body: bytes) -> Answer:
        """Read the body of an answer to a request that was held."""


class Ours(Poll):
    """The JSON poll."""

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Begin a session, and learn where the channel is."""
        head = make_head("POST", "/comet/poll", JSON, open_session(ask))
        _, body = ask(head + self.tail("now"))
        return head, self.tail(decode_answer(body).events[0].position)

    def read(self, body: bytes) -> Answer:
        """Read events, of which the last tells where to go on."""
        events = decode_answer(body).events
        return span([event.data for event in events], self.tail(events[-1].position))

    def tail(self, position: str) -> bytes:
        """Ask for what comes after a position."""
        return make_tail(encode_poll({"ticker": position}).decode())


class Bare(Ours):
    """The same requests and answers, from a server that is as simple as can be."""

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Nothing: there are no sessions, and what is asked for is not read."""
        return make_head("POST", "/comet/poll", JSON, COOKIE), self.tail("bare0000.0")


class Registration(Poll):
    """The registration protocol, on any path and without positions."""

    tail_again = make_tail("registration=ticker")

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Begin a session, so that the requests are as long as the others."""
        kind = "Content-Type: application/x-ocsigen-comet"
        return make_head("POST", "/", kind, open_session(ask)), self.tail_again

    def read(self, body: bytes) -> Answer:
        """Read pairs of a channel and a message."""
        pairs = [line.split(":") for line in body.decode().split("\n")]
        assert {name for name, _ in pairs} == {"ticker"}
        return span([unquote(text) for _, text in pairs], self.tail_again)


class SocketIO(Poll):
    """Engine.IO 4 by polling, and socket.io 5 in it."""

    path = "/socket.io/?EIO=4&transport=polling"

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Open, connect to the default namespace, and take the confirmation."""
        _, opened = ask(make_head("GET", self.path, COOKIE) + make_tail())
        path = f"{self.path}&sid={json.loads(opened[1:])['sid']}"
        ask(make_head("POST", path, "Content-Type: text/plain", COOKIE) + make_tail("40"))
        head = make_head("GET", path, COOKIE)
        _, connected = ask(head + make_tail())
        assert connected.startswith(b"40"), connected
        return head, make_tail()

    def read(self, body: bytes) -> Answer:
        """Read packets; each is a message (4) that is an event (2)."""
        packets = body.decode().split("\x1e")
        assert all(packet.startswith('42["ticker",') for packet in packets), body
        return span([json.loads(packet[2:])[1] for packet in packets], make_tail())


def open_session(ask: Ask) -> str:
    """Open a client process and return the header with its session's cookie."""
    headers, _ = ask(make_head("POST", "/comet/open") + make_tail())
    _, _, rest = headers.partition(b"set-cookie: ")
    return f"Cookie: {rest.split(b';')[0].decode()}"
