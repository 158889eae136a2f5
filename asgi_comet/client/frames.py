"""A WebSocket of a client, without its socket: bytes to frames, and back.

Owns the handshake and the joining of fragments, by the `websockets` library. Must not know
sockets or tasks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from asgi_comet.protocol.frames import SUBPROTOCOL
from asgi_comet.protocol.steps import Lost

__all__ = ["Frames"]

_quiet = logging.getLogger("asgi_comet.client.websocket")
_quiet.setLevel(logging.CRITICAL)  # what is lost is told by the client itself


class Frames:
    """The frames of one WebSocket.

    Args:
        url: Begins with `http` or `https`.
        headers: The headers of the handshake.

    Attributes:
        opened: Whether the server has accepted.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.opened: bool = False
        self._texts: deque[str] = deque()
        self._parts: list[bytes] = []
        self._protocol = ClientProtocol(
            parse_uri(url.replace("http", "ws", 1)),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=None,
            logger=_quiet,
        )
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)

    def send(self, text: str) -> None:
        """Send a frame; `output` has its bytes. After the server's goodbye it goes nowhere."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text.encode())

    def close(self) -> None:
        """Say goodbye, if the server still listens; `output` has the bytes."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)

    def output(self) -> bytes:
        """Return the bytes that are to be sent now."""
        return b"".join(self._protocol.data_to_send())

    def feed(self, data: bytes) -> None:
        """Take bytes that came; none is the end of the connection.

        Raises:
            Lost: The server does not accept.
        """
        self._protocol.receive_data(data) if data else self._protocol.receive_eof()
        for event in self._protocol.events_received():
            self._take(event) if isinstance(event, Frame) else self._open()
        if not self.opened and self._protocol.state is State.CLOSED:
            raise Lost("the server closed the connection before it accepted the WebSocket")

    def next(self) -> str | None:
        """Return the next text; `None` if more bytes are needed.

        Raises:
            Lost: The connection is over.
        """
        if self._texts:
            return self._texts.popleft()
        if self._protocol.state is State.CLOSED or self._protocol.close_rcvd:
            code = self._protocol.close_rcvd.code if self._protocol.close_rcvd else 0
            raise Lost(f"the WebSocket was closed{(code and f' with code {code}') or ''}", code)
        return None

    def _open(self) -> None:
        error = self._protocol.handshake_exc
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            raise Lost(f"the server answered {status} to the WebSocket", status)
        if error is not None:
            raise Lost(f"the server does not accept the WebSocket: {error}")
        self.opened = True

    def _take(self, frame: Frame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._parts.append(bytes(frame.data))
            if frame.fin:
                self._texts.append(b"".join(self._parts).decode(errors="replace"))
                self._parts.clear()
