"""The requests and connections of browsers and their tabs.

Owns cookies, and the client process of a tab. Must not know how messages are read (`reading.py`),
nor what an application is (`workplace.py`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

import anyio
import httpx
from starlette.types import Scope

from asgi_comet.protocol.steps import Reply, check_reply
from asgi_comet.testing.lines import HttpConnection, Line, SocketConnection
from asgi_comet.testing.reading import ChannelReader, Reading, Transport, Way
from asgi_comet.testing.workplace import USER, Workplace

__all__ = ["FORGOTTEN", "Sender", "Traffic", "soon"]

T = TypeVar("T")

FORGOTTEN: Any = ...  # a user who was not given
PATIENCE = 10.0  # seconds of the real clock until an answer begins, or goes on


class Sender:
    """The requests of one browser.

    Args:
        place: Where the application runs.
        user: The answer of `identify`, if given.
        headers: Sent with every request.

    Attributes:
        http: The client of httpx that sends ordinary requests.
        by_hand: Whether the test itself has sent requests to endpoints below PREFIX.
    """

    def __init__(self, place: Workplace, user: Any, headers: Mapping[str, str]) -> None:
        self.http: httpx.AsyncClient = httpx.AsyncClient(
            transport=_Transport(self),
            base_url=place.base_url,
            headers=dict(headers),
            follow_redirects=True,
            timeout=None,  # noqa: S113 - there is no network
        )
        self.by_hand: bool = False
        self._place = place
        self._extra: dict[str, Any] = {} if user is FORGOTTEN else {USER: user}

    def scope(self, request: httpx.Request, kind: str = "http") -> Scope:
        """Return what the application is told of a request."""
        url = request.url
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "server": (url.host, url.port or 443),
            "client": ("127.0.0.1", 50_000),
            "extensions": {},
            **self._extra,
        }

    async def send(
        self,
        request: httpx.Request,
        line: Line,
        sent: list[HttpConnection] | None = None,
        *,
        by_hand: bool = False,
    ) -> HttpConnection:
        """Send a request; return its connection once the head of the answer has come.

        Args:
            request: The request.
            line: The way that faults concern.
            sent: Gets the connection at once.
            by_hand: Whether the test itself sends it.

        Raises:
            ConnectionError: The connection was cut.
        """
        body = await request.aread()
        self.by_hand |= by_hand and request.url.path.startswith(self._place.url(""))
        connection = self._place.call(
            lambda app, scope: HttpConnection(app, scope, line, body), self.scope(request)
        )
        if sent is not None:
            sent.append(connection)
        try:
            await connection.head()
        except BaseException:
            connection.leave()
            raise
        answer = httpx.Response(connection.status, headers=connection.headers, request=request)
        self.http.cookies.extract_cookies(answer)
        return connection


async def soon(answer: Coroutine[Any, Any, T], to: str) -> T:
    """Return an answer that the test waits for.

    Raises:
        AssertionError: It does not come; the text says why that may be.
    """
    with anyio.move_on_after(PATIENCE):
        return await answer
    raise AssertionError(
        f"expected an answer to {to} within {PATIENCE:g} s: the application waits, maybe for the "
        "clock of the test, which another task may advance, or the answer is a stream without an "
        "end, or the connections of the tab are cut"
    )


class _Transport(httpx.AsyncBaseTransport):
    """Sends the requests of httpx, which no fault concerns."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await soon(self._send(request), f"{request.method} {request.url.path}")

    async def _send(self, request: httpx.Request) -> httpx.Response:
        connection = await self._sender.send(request, Line(), by_hand=True)
        return httpx.Response(
            connection.status, headers=connection.headers, stream=_Body(connection)
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        of = f"{self._connection.path}, or its end,"
        while piece := await soon(self._connection.read(), of):
            yield piece

    async def aclose(self) -> None:
        self._connection.leave()


class Traffic(Way):
    """The connections of one tab, and what is known of its client process.

    Args:
        place: Where the application runs.
        sender: Sends the requests of the browser.

    Attributes:
        sender: The same.
        process: The token of the client process; empty as long as there is none.
        last: The last request of the tab.
        channels: The channels that the tab reads, or has read.
        readings: The connections that read, but for those that a newer one has continued.
        polls: The polls of channels of the client process, in order.
        served: Endpoints that have served a client process that was closed when the tab asked.
    """

    def __init__(self, place: Workplace, sender: Sender) -> None:
        self.sender: Sender = sender
        self.process: str = ""
        self.last: httpx.Request | None = None
        self.line: Line = Line()
        self.channels: list[ChannelReader] = []
        self.readings: list[Reading] = []
        self.polls: list[HttpConnection] = []
        self.served: list[str] = []
        self._place = place

    @property
    def closed(self) -> bool:
        """Whether the client process has closed."""
        return bool(self.process) and self._place.is_closed(self.process)

    def read(self, name: str, start: str, transport: Transport) -> ChannelReader:
        """Read a channel, see `Tab.channel`."""
        reader = ChannelReader(name, self._place.watch)
        self.channels.append(reader)
        channels = {reader: start}
        for reading in self.readings if _is_own(name, transport) else ():
            if reading.own and not reading.ended:
                channels = {**reading.left, **channels}
                reading.leave()
                self.readings.remove(reading)
                break
        reading = Reading(self, self._place.clock, channels, transport)
        self.readings.append(reading)
        self._place.start(reading.run)
        return reader

    def leave(self) -> None:
        """Leave without a word, as a device does whose battery is empty."""
        for reading in self.readings:
            reading.leave()

    async def repeat(self) -> httpx.Response | None:
        """Send the last request of the tab once more, as a network may, of any kind.

        Returns:
            The answer; `None` if the server holds the request.

        Raises:
            RuntimeError: The tab has sent none.
        """
        if self.last is None:
            raise RuntimeError("expected a tab that has sent a request, it has sent none yet")
        body = await self.last.aread()
        connection = self._place.call(
            lambda app, scope: HttpConnection(app, scope, Line(), body),
            self.sender.scope(self.last),
        )
        await self._place.watch.settle()
        held = not connection.over
        connection.leave()
        await self._place.watch.settle()
        if held:
            return None
        await connection.head()
        body = b"".join([piece async for piece in _Body(connection)])
        return httpx.Response(connection.status, headers=connection.headers, content=body)

    # As a way for readings

    async def open_process(self) -> str:
        """Return the path of the tab's client process, below PREFIX; open one first."""
        if not self.process:
            reply = await self.ask("open", b"{}")
            check_reply(reply)
            self.process = json.loads(reply.body)["process"]
        return f"p/{self.process}/"

    async def ask(self, path: str, body: bytes, kind: str = "application/json") -> Reply:
        """Send a request of the protocol; return the whole answer."""
        closed = self._place.alone and self.closed
        connection = await self._send("POST", path, body, {"Content-Type": kind})
        if closed and path.startswith("p/") and connection.status < 300:
            self.served.append(path.rpartition("/")[2])
        pieces = []
        try:
            while piece := await connection.read():
                pieces.append(piece)
        finally:
            connection.leave()
        after = dict(connection.headers).get(b"retry-after", b"0")
        return Reply(connection.status, b"".join(pieces), float(after))

    async def stream(self, path: str) -> HttpConnection:
        """Ask for an event stream; its head has come."""
        return await self._send("GET", path)

    async def connect(self, path: str) -> SocketConnection:
        """Open a WebSocket, whose handshake is still to be waited for."""
        await self._reach()
        request = self.sender.http.build_request("GET", self._place.url(path))
        scope = self.sender.scope(request, "websocket")
        scope.update(scheme="wss", subprotocols=["comet.v1"])
        return self._place.call(lambda app, scope: SocketConnection(app, scope, self.line), scope)

    async def _send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpConnection:
        await self._reach()
        http = self.sender.http
        url = self._place.url(path)
        self.last = http.build_request(method, url, content=body, headers=headers)
        polls = path.endswith("/poll?ack=1")
        return await self.sender.send(self.last, self.line, self.polls if polls else None)

    async def _reach(self) -> None:
        """Return once the server can be reached."""
        await self.line.clear()
        await self._place.ready()


def _is_own(name: str, transport: Transport) -> bool:
    return name[0] == "~" or transport == "registration"
