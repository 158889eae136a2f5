"""Connections to an application in the same process, with the faults of a network.

Owns what an ASGI server does: what it gives to the application, takes from it, and when it says
that a client has gone. Must not know what is said over a connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect

from asgi_comet.testing.clock import moment

__all__ = ["Connection", "Cutting", "HttpConnection", "Line", "SocketConnection"]

Cutting = Literal["before answer", "after answer", "inside a frame"]
"""Where a connection is cut.

`before answer`: at once, so what the server sends has no reader. `after answer`: when the server
has sent something, none of which arrives. `inside a frame`: the same, and half of it arrives.
"""

CUTTINGS: tuple[Cutting, ...] = ("before answer", "after answer", "inside a frame")
LEFT = (OSError, ClientDisconnect, WebSocketDisconnect)  # raised where a client has gone
NOBODY = 1006  # the code of a WebSocket whose client has gone without a word


class Line:
    """The way of one client to the server, which faults concern as a whole.

    Attributes:
        open: The connections, in the order in which they were opened.
    """

    def __init__(self) -> None:
        self.open: dict[Connection, None] = {}
        self._where: Cutting | None = None
        self._stalled = False
        self._changed = anyio.Event()

    @contextmanager
    def cut(self, where: Cutting) -> Iterator[None]:
        """Cut every connection once; the client cannot connect meanwhile.

        Raises:
            ValueError: There is no such place.
        """
        if where not in CUTTINGS:
            raise ValueError(f"expected one of {', '.join(map(repr, CUTTINGS))}, got {where!r:.80}")
        self._where = where
        if where == "before answer":
            self._break_all()
        try:
            yield
        finally:
            self._where = None
            self._break_all()
            self._change()

    @contextmanager
    def stall(self) -> Iterator[None]:
        """Take nothing of what the server sends; a server that sends waits."""
        self._stalled = True
        try:
            yield
        finally:
            self._stalled = False
            self._change()

    @property
    def faulty(self) -> bool:
        """Whether the server cannot be reached now, or what it sends is not taken."""
        return self._where is not None or self._stalled

    async def clear(self) -> None:
        """Return once the client can connect."""
        while self._where is not None:
            await self._changed.wait()

    async def room(self, connection: Connection) -> None:
        """Return once the client takes something, or has gone."""
        while self._stalled and not connection.gone:
            await self._changed.wait()

    def carry(self, connection: Connection, data: bytes) -> bytes:
        """Return what arrives of what the server sends; cuts the connection if it is time."""
        if self._where is None:
            return data
        arrived = data[: len(data) // 2] if self._where == "inside a frame" else b""
        connection.lose()
        return arrived

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        self.open.pop(connection, None)

    def tell(self) -> None:
        """Have those look again that wait for room."""
        self._change()

    def _break_all(self) -> None:
        for connection in list(self.open):
            connection.lose()

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class Connection(ABC):
    """One call of an application.

    Args:
        app: The application.
        scope: What it is told about the connection.
        line: The way between.

    Attributes:
        app: The application.
        gone: Whether the client has left.
        lost: Whether the connection was cut.
        over: Whether the application has returned.
        failure: What the application has raised.
        told: Whether the client was told of the failure.
    """

    def __init__(self, app: ASGIApp, scope: Scope, line: Line) -> None:
        self.app: ASGIApp = app
        self.gone: bool = False
        self.lost: bool = False
        self.over: bool = False
        self.failure: Exception | None = None
        self.told: bool = False
        self._scope = scope
        self._line = line
        self._arrived: deque[Any] = deque()
        self._news = anyio.Event()
        self._left = anyio.Event()
        line.open[self] = None

    async def run(self) -> None:
        """Call the application."""
        try:
            await self.app(self._scope, self._receive, self._send)
        except Exception as error:
            self.failure = error
            self.told = self.gone and isinstance(error, LEFT)
        finally:
            self.over = True
            self._line.leave(self)
            self._tell()

    def leave(self) -> None:
        """Leave: the application is told that the client has gone."""
        self.gone = True
        self._left.set()
        self._line.leave(self)
        self._line.tell()
        self._tell()

    def lose(self) -> None:
        """Cut the connection: both sides find out."""
        self.lost = True
        self.leave()

    async def _next(self) -> Any:
        """Return what has arrived next.

        Raises:
            ConnectionError: The connection was cut.
            EOFError: The application has returned.
            Exception: What the application has raised.
        """
        while not self._arrived or self.failure is not None:
            if self.lost:
                raise ConnectionError("the connection was cut")
            if self.failure is not None:
                self.told = True
                raise self.failure
            if self.over:
                raise EOFError
            self._news = anyio.Event()
            await self._news.wait()
        return self._arrived.popleft()

    def _arrive(self, what: Any) -> None:
        self._arrived.append(what)
        self._tell()

    def _tell(self) -> None:
        self._news.set()

    @abstractmethod
    async def _receive(self) -> Message: ...

    @abstractmethod
    async def _send(self, message: Message) -> None: ...


class HttpConnection(Connection):
    """A request, and its answer as it comes.

    Args:
        app: The application.
        scope: What it is told about the request.
        line: The way between.
        body: The body of the request.

    Attributes:
        status: The status of the answer.
        headers: The headers of the answer.
        asked: When the request was sent, see `clock.moment`.
        taken: When the application held or answered it; 0 before.
        answered: When the answer began; 0 before, and if the client has left.
    """

    def __init__(self, app: ASGIApp, scope: Scope, line: Line, body: bytes) -> None:
        super().__init__(app, scope, line)
        self.asked: int = moment()
        self.taken: int = 0
        self.answered: int = 0
        self.status: int = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | None = body

    @property
    def path(self) -> str:
        """The path of the request."""
        return str(self._scope["path"])

    @property
    def cookies(self) -> list[bytes]:
        """The cookies of the request."""
        return [value for name, value in self._scope["headers"] if name == b"cookie"]

    async def head(self) -> None:
        """Return once there are status and headers.

        Raises:
            ConnectionError: The connection was cut.
            RuntimeError: The application has returned without an answer.
            Exception: What the application has raised.
        """
        try:
            message = await self._next()
        except EOFError:
            raise RuntimeError(
                f"expected an answer to {self._scope['method']} {self._scope['path']}, "
                "the application gave none"
            ) from None
        self.status, self.headers = message["status"], list(message.get("headers", ()))

    async def read(self) -> bytes:
        """Return the next piece of the body; empty at its end.

        Raises:
            ConnectionError: The connection was cut.
            Exception: What the application has raised.
        """
        try:
            found: bytes = await self._next()
        except EOFError:
            return b""
        return found

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        self.taken = self.taken or moment()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.taken = self.taken or moment()
        if not self.gone:
            self.answered = self.answered or moment()
        await self._line.room(self)
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self._arrive(message)
            return
        if (body := message.get("body", b"")) and (arrived := self._line.carry(self, body)):
            self._arrive(arrived)
        if not message.get("more_body", False) and not self.gone:
            self._arrive(b"")


class SocketConnection(Connection):
    """A WebSocket.

    Attributes:
        code: The code with which the server has closed it; 0 before.
    """

    def __init__(self, app: ASGIApp, scope: Scope, line: Line) -> None:
        super().__init__(app, scope, line)
        self.code: int = 0
        self._said: deque[Message] = deque([{"type": "websocket.connect"}])
        self._heard = anyio.Event()

    async def read(self) -> str:
        """Return the next frame; the first one is empty, and tells that the server has accepted.

        Raises:
            ConnectionError: The connection was closed or cut.
            Exception: What the application has raised.
        """
        try:
            found: str = await self._next()
        except EOFError:
            raise ConnectionError("the connection was closed") from None
        return found

    def send(self, text: str) -> None:
        """Send a frame."""
        self._say({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        """Leave: the application is told that the client has gone."""
        self._say({"type": "websocket.disconnect", "code": NOBODY, "reason": ""})
        super().leave()

    def _say(self, message: Message) -> None:
        self._said.append(message)
        self._heard.set()

    async def _receive(self) -> Message:
        while not self._said:
            self._heard = anyio.Event()
            await self._heard.wait()
        return self._said.popleft()

    async def _send(self, message: Message) -> None:
        await self._line.room(self)
        if self.gone:
            raise OSError("the client has gone")  # as servers tell it
        match message["type"]:
            case "websocket.accept":
                self._arrive("")
            case "websocket.send":
                data = message.get("text") or message["bytes"].decode()
                arrived = self._line.carry(self, data.encode())
                if arrived and not self.lost:  # half a frame is none
                    self._arrive(data)
            case _:  # "websocket.close"
                self.code = message.get("code", 1000)
                self._say({"type": "websocket.disconnect", "code": self.code, "reason": ""})
