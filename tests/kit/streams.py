"""Clients of the transports that stay open, as a test's thread drives them.

Both read only when they are asked to, and a wait for what does not come fails after `PATIENCE`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from asgi_comet.protocol.sse import Decoder
from tests.kit.serving import Address

PATIENCE = 20.0  # seconds until a test fails for what does not come

LINGER = struct.pack("ii", 1, 0)  # a close that throws away what is on its way


class Cut(Exception):
    """The connection broke where it should not have."""


def reset(connection: socket.socket) -> None:
    """Close a connection without a goodbye: the other end sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    connection.close()


@dataclass
class Event:
    """What an `EventSource` dispatches; a comment has the name `#`."""

    name: str
    data: str = ""
    id: str = ""
    ahead: int = 0

    @property
    def value(self) -> Any:
        return json.loads(self.data)


@dataclass
class Sse:
    """One request for server-sent events over a raw socket, and its answer bit by bit.

    Attributes:
        status: Of the answer.
        headers: Of the answer, by lower-case name.
        last_id: The id to come back with.
        chunks: The pieces as the server wrote them.
        over: Whether the answer has come to its proper end.
    """

    connection: socket.socket
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    last_id: str | None = None
    chunks: list[bytes] = field(default_factory=list)
    over: bool = False
    _raw: bytes = b""
    _decoder: Decoder = field(default_factory=Decoder)
    _found: deque[Event] = field(default_factory=deque)

    @classmethod
    def open(
        cls,
        address: Address,
        channels: dict[str, str | None] | list[str],
        base: str = "/comet",
        more: dict[str, str] | None = None,
        **headers: Any,
    ) -> Sse:
        """Ask for channels, from positions if any has one; read the head of the answer."""
        fields = [("channel", name) for name in channels]
        if isinstance(channels, dict):
            fields += [("position", start) for start in channels.values() if start is not None]
        fields += (more or {}).items()
        return cls.get(address, f"{base}/events?{urlencode(fields)}", **headers)

    @classmethod
    def get(cls, address: Address, path: str, method: str = "GET", **headers: Any) -> Sse:
        found = cls(address.connect())
        found.connection.settimeout(PATIENCE)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {address.host}:{address.port}"]
        for name, value in headers.items():
            if value is not None:
                lines.append(f"{name.replace('_', '-')}: {value}")
        try:
            found.connection.sendall("\r\n".join([*lines, "", ""]).encode())
            found.read_head()
        except BaseException:
            found.connection.close()
            raise
        return found

    def __enter__(self) -> Sse:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def next(self) -> Event:
        """Return the next event or comment."""
        while not self._found:
            if not self.read_chunk():
                last = self.chunks[-1:]
                raise Cut(f"the stream ended cleanly where an event was expected, after {last!r}")
        event = self._found.popleft()
        self.last_id = event.id or self.last_id
        return event

    @property
    def retry(self) -> int | None:
        """Milliseconds after which to come back."""
        return self._decoder.retry

    def take(self, count: int) -> list[Event]:
        return [self.next() for _ in range(count)]

    def rest(self) -> list[Event]:
        """Return what comes until the stream ends, as it must: cleanly, after a whole event."""
        found = []
        while self._found or self.read_chunk():
            if self._found:
                found.append(self.next())
        assert self._decoder.whole
        return found

    def body(self) -> bytes:
        """Return all of an answer that is no stream."""
        while self.read_chunk():
            pass
        return b"".join(self.chunks)

    def cut(self) -> None:
        reset(self.connection)

    def _more(self) -> None:
        got = self.connection.recv(65536)
        if not got:
            raise Cut("the connection was closed in the middle")
        self._raw += got

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._raw:
            self._more()
        found, _, self._raw = self._raw.partition(mark)
        return found

    def read_head(self) -> None:
        lines = self._read_until(b"\r\n\r\n").decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value

    def read_chunk(self) -> bool:
        if self.over:
            return False
        if self.headers.get("transfer-encoding") == "chunked":
            size = int(self._read_until(b"\r\n"), 16)
            tail = 2
            self.over = size == 0
        else:
            size, tail, self.over = int(self.headers.get("content-length", "0")), 0, True
        while len(self._raw) < size + tail:
            self._more()
        chunk, self._raw = self._raw[:size], self._raw[size + tail :]
        if chunk:
            self.chunks.append(chunk)
            before = self._decoder.comments
            found = self._decoder.feed(chunk)
            self._found += [Event("#")] * (self._decoder.comments - before)
            self._found += [Event(*one) for one in found]
        return not self.over or bool(chunk)


class Ws:
    """A WebSocket that reads frame by frame.

    Args:
        address: The server.
        base: Where its endpoints are.
        cookie: The browser's.
        origin: The page's.
        protocols: What it can speak.
        query: With its `?`.
    """

    def __init__(
        self,
        address: Address,
        base: str = "/comet",
        cookie: str = "",
        origin: str | None = None,
        protocols: tuple[str, ...] = ("comet.v1",),
        query: str = "",
    ) -> None:
        self.connection: ClientConnection = connect(
            f"ws://{address.host}:{address.port}{base}/socket{query}",
            additional_headers={"Cookie": cookie} if cookie else {},
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol(name) for name in protocols] or None,
            compression=None,
            max_size=None,
            max_queue=None,  # it reads all the time, whether or not it is asked
            open_timeout=PATIENCE,
            ping_interval=None,
            close_timeout=PATIENCE,
            proxy=None,
            legacy=True,  # not as a context manager
        )
        self._found: deque[dict[str, Any]] = deque()

    def __enter__(self) -> Ws:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def say(self, **frame: Any) -> None:
        self.connection.send(json.dumps(frame))

    def frame(self) -> Any:
        """Return the next frame as it came."""
        return json.loads(self.connection.recv(PATIENCE))

    def next(self) -> dict[str, Any]:
        """Return the next event."""
        while not self._found:
            self._found += self.frame()["events"]
        return self._found.popleft()

    def take(self, count: int) -> list[dict[str, Any]]:
        return [self.next() for _ in range(count)]

    def closed(self) -> int:
        """Return the code with which the server closes it now; nothing else may come before."""
        try:
            came = self.connection.recv(PATIENCE)
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd is not None else 1006
        raise AssertionError(f"expected it to be closed, got {came!r:.200}")

    def cut(self) -> None:
        """Break it off without a goodbye, if it is still open."""
        with contextlib.suppress(OSError):
            self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.connection.close_socket()
        self.connection.recv_events_thread.join(PATIENCE)
