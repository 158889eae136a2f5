"""How the peers of server-sent events are spoken.

Owns no connections and measures nothing. Reads only whole events: nothing else is ever kept of a
stream.
"""

from __future__ import annotations

import json
import socket

from asgi_comet.protocol.sse import Decoder

from .dialects import COOKIE, Answer, Dialect, span
from .http import join_chunks, make_head, make_tail, read_head

CHUNKED = b"transfer-encoding: chunked"


class EventStream(Dialect):
    """Events of the name `ticker`, whose data is the text.

    Args:
        path: Where the stream is.
    """

    def __init__(self, path: str) -> None:
        self._request = make_head("GET", path, "Accept: text/event-stream", COOKIE) + make_tail()
        self._chunked = True

    def open(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Ask for the stream, and see how it is sent: nginx sends a raw one."""
        connection.sendall(self._request)
        head, rest = read_head(connection)
        lower = head.lower()
        if not (lower.startswith(b"http/1.1 200") and b"text/event-stream" in lower):
            raise ValueError(f"expected a stream of events, got {head!r:.300}")
        self._chunked = CHUNKED in lower
        return b"", rest

    def decode(self, raw: bytes) -> Answer | None:
        """Read events once they are complete."""
        body = join_chunks(raw) if self._chunked else raw
        if body is None:
            return None
        decoder = Decoder()
        events = decoder.feed(body)
        if not decoder.whole:
            return None
        return span([m for event in events for m in self.read(event.name, event.data)])

    def read(self, name: str, data: str) -> list[str]:
        """Return the messages of an event."""
        if name != "ticker":
            raise ValueError(f"expected an event of the name ticker, got {name!r}: {data!r:.300}")
        return [data]


class OurEvents(EventStream):
    """Values as JSON, and a first event that only tells where the listener is."""

    def __init__(self) -> None:
        super().__init__("/comet/events?channel=ticker")

    def read(self, name: str, data: str) -> list[str]:
        """Pass over the first event."""
        return [] if name == ":open" else super().read(name, json.loads(data))
