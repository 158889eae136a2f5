"""Connections of a client in a thread.

Owns connections and the client process. Must not know which step is next: `protocol/following.py`
says so.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from time import sleep

import httpx

from asgi_comet.client.frames import Frames
from asgi_comet.client.replies import JSON, LOST, log_pause, read_process, read_reply, tell_lost
from asgi_comet.client.target import Target
from asgi_comet.protocol.following import FIRST_EVENT, SILENCE
from asgi_comet.protocol.steps import (
    Close,
    Lost,
    OpenProcess,
    OpenSocket,
    OpenStream,
    Pause,
    Post,
    Read,
    Reply,
    Send,
    Step,
)

__all__ = ["Connection", "Line"]

GOODBYE = 1.0  # seconds to close a client process properly
PIECE = 65536  # bytes read at once


class Line:
    """Requests of one client, and its client process.

    Args:
        target: Where the client connects.

    Attributes:
        target: The same.
    """

    def __init__(self, target: Target) -> None:
        self.target: Target = target
        self._http = httpx.Client(
            headers=target.headers,
            cookies=target.cookies,
            timeout=SILENCE,
            verify=target.tls or True,
        )
        self._opening = Lock()
        self._process = target.process

    def process(self) -> str:
        """Return the token of the client process; open one first."""
        with self._opening:
            if not self._process:
                self._process = read_process(self.ask("open", b"{}", FIRST_EVENT))
            return self._process

    def check(self) -> None:
        """Check that the client is open.

        Raises:
            RuntimeError: It is not.
        """
        if self._http.is_closed:
            raise RuntimeError("expected a client that is open, got one that has been closed")

    def forget(self) -> None:
        """Forget the client process, which has closed."""
        self._process = self.target.process

    def ask(self, path: str, body: bytes, within: float) -> Reply:
        """Send a request.

        Raises:
            Lost: There was no reply in time.
        """
        url = f"{self.target.url}/{path}"
        try:
            return read_reply(self._http.post(url, content=body, headers=JSON, timeout=within))
        except LOST as error:
            raise tell_lost(error) from error

    def open_stream(self, path: str, within: float) -> httpx.Response:
        """Ask for an event stream; its head is read, or all of what is none."""
        url = f"{self.target.url}/{path}"
        request = self._http.build_request("GET", url, timeout=within)
        response = self._http.send(request, stream=True)
        # httpx takes one time for all pieces: that of the silence which ends a connection.
        request.extensions["timeout"]["read"] = SILENCE
        if response.status_code != 200:
            response.read()
        return response

    def make_frames(self, path: str) -> Frames:
        """Return a WebSocket whose handshake is to be sent."""
        url = f"{self.target.url}/{path}"
        cookie = self._http.build_request("GET", url).headers.get("Cookie")
        return Frames(url, self.target.headers | ({"Cookie": cookie} if cookie else {}))

    def close(self) -> None:
        """Close the client process, if this client has opened it, and all connections."""
        if self._process != self.target.process:
            with suppress(Lost):
                self.ask(f"p/{self._process}/close", b"", GOODBYE)
            self.forget()
        self._http.close()


class Connection:
    """Runs steps, over one connection at a time."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._base = ""
        self._open: _Stream | _Socket | None = None

    def run(self, step: Step) -> object:
        """Run a step; return what came of it, or `Lost`.

        Raises:
            RuntimeError: The client has been closed.
        """
        self._line.check()
        try:
            return self._run(step)
        except Lost as lost:
            return lost
        except LOST as error:
            return tell_lost(error)

    def _run(self, step: Step) -> object:
        match step:
            case OpenProcess():
                token = self._line.process()
                self._base = "" if self._line.target.process else f"p/{token}/"
            case Post():
                return self._line.ask(self._base + step.path, step.body, step.within)
            case OpenStream():
                response = self._line.open_stream(self._base + step.path, step.within)
                self._open = _Stream(response)
                return read_reply(response)
            case OpenSocket():
                frames = self._line.make_frames(self._base + step.path)
                self._open = _connect(self._line.target, frames, step.within)
                self._open.shake_hands()
            case Read() if self._open is not None:
                return self._open.read(step.within)
            case Send() if isinstance(self._open, _Socket):
                self._open.send(step.text)
            case Pause():
                log_pause(self._line.target, step)
                sleep(step.seconds)
            case Close():
                self.close()
        return None

    def close(self) -> None:
        """Close the stream or the WebSocket, if one is open."""
        held, self._open = self._open, None
        if held is not None:
            held.close()


class _Stream:
    """An event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_bytes()

    def read(self, _: float) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        self._response.close()


class _Socket:
    """A WebSocket."""

    def __init__(self, connection: socket.socket, frames: Frames) -> None:
        self._connection = connection
        self._frames = frames

    def shake_hands(self) -> None:
        self._flush()
        while not self._frames.opened:
            self._feed()

    def send(self, text: str) -> None:
        self._frames.send(text)
        self._flush()

    def read(self, within: float) -> str:
        self._connection.settimeout(within)
        while (text := self._frames.next()) is None:
            self._feed()
        return text

    def _feed(self) -> None:
        """Take bytes, and answer pings."""
        self._frames.feed(self._connection.recv(PIECE))
        self._flush()

    def _flush(self) -> None:
        if output := self._frames.output():
            self._connection.sendall(output)

    def close(self) -> None:
        self._frames.close()
        with self._connection, suppress(*LOST):
            self._connection.settimeout(GOODBYE)
            self._flush()


def _connect(target: Target, frames: Frames, within: float) -> _Socket:
    connection = socket.create_connection((target.host, target.port), timeout=within)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # frames are short
    if target.tls is not None:
        connection = target.tls.wrap_socket(connection, server_hostname=target.host)
    return _Socket(connection, frames)
