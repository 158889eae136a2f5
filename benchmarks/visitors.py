"""Clients that only hold connections: cheap enough for ten thousand in one process.

Owns how each kind asks, and how it leaves. What it is told is thrown away, but for the position
that a poll goes on from.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import Any, cast

from .frames import KEY, encode_text
from .http import make_head, make_tail, split

HOST = "127.0.0.1"
JSON = "Content-Type: application/json"
ROOMS = 500  # members of the family that tabs visit
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close that resets

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


class Visitor(asyncio.Protocol):
    """One connection.

    Args:
        request: What it sends first.

    Attributes:
        closing: How to say goodbye: the path and the headers of a request, if it does.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.transport: asyncio.Transport | None = None
        self.closing: tuple[str, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def leave(self, *, reset: bool) -> None:
        """Close the connection in order, or have it reset."""
        assert self.transport is not None
        connection = self.transport.get_extra_info("socket")
        if reset and connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()


class Poller(Visitor):
    """A client that asks again after each answer."""

    def __init__(self) -> None:
        super().__init__(ask_again("now"))
        self._raw = b""

    def data_received(self, data: bytes) -> None:
        """Ask again once an answer is complete."""
        self._raw += data
        answer = split(self._raw)
        if answer is not None and self.transport is not None:
            self._raw = b""
            found = re.findall(rb'"position":"([^"]+)"', answer[1])
            self._position = found[-1].decode() if found else self._position
            self.transport.write(ask_again(self._position))

    _position = "now"


class Socket(Visitor):
    """A WebSocket: it subscribes once it is open."""

    def __init__(self) -> None:
        super().__init__(make_head("GET", "/comet/socket", *UPGRADE) + make_tail())
        self._open = False

    def data_received(self, data: bytes) -> None:
        """Subscribe after the handshake."""
        if not self._open and self.transport is not None:
            self._open = True
            self.transport.write(encode_text('{"subscribe": {"websocket": "now"}}'))


def ask_again(position: str) -> bytes:
    """Write a poll."""
    body = f'{{"channels": {{"poll": "{position}"}}}}'
    return make_head("POST", "/comet/poll", JSON) + make_tail(body)


async def ask_once(port: int, path: str, *headers: str) -> bytes:
    """Post without a body on a connection of its own, and return the answer."""
    reader, writer = await asyncio.open_connection(HOST, port)
    head = make_head("POST", path, JSON, "Content-Length: 0", "Connection: close", *headers)
    writer.write(head + make_tail())
    raw = await reader.read()
    writer.close()
    return raw


async def open_tab(port: int, number: int) -> Visitor:
    """Open a client process, and follow a channel of it, a room and a channel of the site."""
    raw = await ask_once(port, "/comet/open")
    url = raw.partition(b'"url":')[2].split(b'"')[1].decode()
    cookie = re.findall(rb"[Ss]et-[Cc]ookie: ([^;]+)", raw)[0].decode()
    names = f"channel=~later&channel=room:{number % ROOMS}&channel=sse"
    tab = Visitor(make_head("GET", f"{url}/events?{names}", f"Cookie: {cookie}") + make_tail())
    if number % 8 < 4:
        tab.closing = f"{url}/close", f"Cookie: {cookie}"
    return tab


async def arrive(port: int, number: int) -> Visitor:
    """Connect a visitor; a quarter each polls, reads events, has a WebSocket, is a tab."""
    match number % 4:
        case 0:
            visitor: Visitor = Poller()
        case 1:
            visitor = Visitor(make_head("GET", "/comet/events?channel=sse") + make_tail())
        case 2:
            visitor = Socket()
        case _:
            visitor = await open_tab(port, number // 4)
    loop: Any = asyncio.get_running_loop()
    await loop.create_connection(lambda: visitor, HOST, port)
    return visitor


async def depart(port: int, visitor: Visitor, *, reset: bool) -> None:
    """Let a visitor go; some say goodbye first."""
    if visitor.closing is not None:
        await ask_once(port, *visitor.closing)
    visitor.leave(reset=reset)
