"""How each peer is spoken: what a client says to be held, and what an answer holds.

Owns no connections and measures nothing. A request is a head, which is a client's own, and a tail,
which all clients at the same place share. All say the same headers where the protocol allows it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from .control import make_text
from .http import make_head, make_tail

Ask = Callable[[bytes], tuple[bytes, bytes]]  # a request to the headers and body of its answer

COOKIE = "Cookie: comet=" + "x" * 80  # where the peer has no sessions: as long as ours
JSON = "Content-Type: application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer holds: the messages `first … last`, and the tail of the next request."""

    first: int
    last: int
    tail: bytes


class Dialect(ABC):
    """One way to be served by one peer.

    Attributes:
        label: Its name in tables.
        app: The server's application.
    """

    label: str
    app: str

    @abstractmethod
    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Do what comes before the first hold, and return the head and first tail to hold with."""

    @abstractmethod
    def read(self, body: bytes) -> Answer:
        """Read an answer to a request that was held."""


class Ours(Dialect):
    """The JSON poll."""

    label = "asgi_comet, JSON poll"
    app = "benchmarks.poll_ours:app"

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Begin a session, and learn where the channel is."""
        head = make_head("POST", "/comet/poll", JSON, open_session(ask))
        _, body = ask(head + self.tail("now"))
        return head, self.tail(json.loads(body)["events"][0]["position"])

    def read(self, body: bytes) -> Answer:
        """Read events, of which the last tells where to go on."""
        events = json.loads(body)["events"]
        first, last = span([event["data"] for event in events])
        return Answer(first, last, self.tail(events[-1]["position"]))

    def tail(self, position: str) -> bytes:
        """Ask for what comes after a position."""
        return make_tail(json.dumps({"channels": {"ticker": position}}))


class Bare(Ours):
    """The same requests and answers, from a server that is as simple as can be."""

    label = "bare ASGI"
    app = "benchmarks.poll_bare:app"

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Nothing: there are no sessions, and what is asked for is not read."""
        return make_head("POST", "/comet/poll", JSON, COOKIE), self.tail("bare0000.0")


class Registration(Dialect):
    """The registration protocol, on any path and without positions."""

    label = "asgi_comet, registration"
    app = Ours.app
    again = make_tail("registration=ticker")

    def enter(self, ask: Ask) -> tuple[bytes, bytes]:
        """Begin a session, so that the requests are as long as the others."""
        kind = "Content-Type: application/x-ocsigen-comet"
        return make_head("POST", "/", kind, open_session(ask)), self.again

    def read(self, body: bytes) -> Answer:
        """Read pairs of a channel and a message."""
        pairs = [line.split(":") for line in body.decode().split("\n")]
        assert {name for name, _ in pairs} == {"ticker"}
        return Answer(*span([unquote(text) for _, text in pairs]), self.again)


class SocketIO(Dialect):
    """Engine.IO 4 by polling, and socket.io 5 in it."""

    label = "python-socketio, polling"
    app = "benchmarks.poll_socketio:app"
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
        return Answer(*span([json.loads(packet[2:])[1] for packet in packets]), make_tail())


DIALECTS: dict[str, Dialect] = {
    "bare": Bare(),
    "ours": Ours(),
    "registration": Registration(),
    "socketio": SocketIO(),
}
"""By the name on the command line; the first is what the others are compared with."""


def open_session(ask: Ask) -> str:
    """Open a client process and return the header with its session's cookie."""
    headers, _ = ask(make_head("POST", "/comet/open") + make_tail())
    _, _, rest = headers.partition(b"set-cookie: ")
    return f"Cookie: {rest.split(b';')[0].decode()}"


def span(texts: list[str]) -> tuple[int, int]:
    """Return the first and the last number of messages that have no gap, or raise `ValueError`."""
    first = int(texts[0][:8])
    if texts != [make_text(first + n) for n in range(len(texts))]:
        raise ValueError(f"expected messages from {first} on in order, got {texts!r:.300}")
    return first, first + len(texts) - 1
