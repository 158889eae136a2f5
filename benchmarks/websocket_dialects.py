"""How the peers of WebSocket are spoken.

Owns no connections and measures nothing.
"""

from __future__ import annotations

import json
import socket

from asgi_comet.protocol.events import NO_DATA
from asgi_comet.protocol.frames import decode_heard, encode_asked

from .dialects import Answer, Dialect, span
from .frames import decode_texts, encode_text, shake_hands
from .http import CHUNK


class Frames(Dialect):
    """A frame is a message.

    Args:
        path: Where the WebSocket is.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Shake hands."""
        return b"", shake_hands(connection, self._path)

    def decode(self, raw: bytes) -> Answer | None:
        """Read frames once they are complete."""
        texts = decode_texts(raw)
        return None if texts is None else span([m for t in texts for m in self.read(t)])

    def read(self, text: str) -> list[str]:
        """Return the messages of a frame."""
        return [text]


class OurFrames(Frames):
    """Frames of events, of which there may be none; one without data tells where a listener is."""

    def __init__(self) -> None:
        super().__init__("/comet/socket")

    def open(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Shake hands and subscribe."""
        opened = super().open(connection)
        connection.sendall(encode_text(encode_asked(subscribe={"ticker": "now"})))
        return opened

    def read(self, text: str) -> list[str]:
        """Return the data of events; an error has none either, but no position."""
        events = decode_heard(text)
        if any(event.error or event.channel != "ticker" for event in events):
            raise ValueError(f"expected events of the channel ticker, got {text!r:.300}")
        return [event.data for event in events if event.data is not NO_DATA]


class SocketIOFrames(Frames):
    """Engine.IO 4, and socket.io 5 in it."""

    def __init__(self) -> None:
        super().__init__("/socket.io/?EIO=4&transport=websocket")

    def open(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Wait for the session, and connect to the default namespace."""
        head, rest = super().open(connection)
        while not decode_texts(rest):
            piece = connection.recv(CHUNK)
            if not piece:
                raise ConnectionError(f"expected a session, the server closed after {rest!r:.300}")
            rest += piece
        connection.sendall(encode_text("40"))
        return head, b""

    def read(self, text: str) -> list[str]:
        """Return the argument of a message (4) that is an event (2); a confirmation has none."""
        if text.startswith("40"):
            return []
        if not text.startswith('42["ticker",'):
            raise ValueError(f"expected an event, got {text!r:.300}")
        return [json.loads(text[2:])[1]]
