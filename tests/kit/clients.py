"""One client per transport, all with the same interface: what a page can do, whatever carries it.

Each tells events in the shape of the poll. It keeps the positions it was told, and comes back with
them, as a page does that follows docs/wire.md.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar
from urllib.parse import unquote

import anyio.lowlevel
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from websockets.exceptions import ConnectionClosed, InvalidMessage

from asgi_comet.client import AsyncClient, AsyncMessages, Message
from asgi_comet.errors import ChannelClosed, ChannelFull, CometError, ProcessClosed, Replaced
from asgi_comet.protocol import events as protocol
from asgi_comet.protocol.events import NO_DATA, decode_answer, encode_poll
from asgi_comet.protocol.sse import Dispatched, read_events
from tests.kit.serving import COMET, Address, Answer, Tab, read
from tests.kit.streams import PATIENCE, Cut, Sse, Ws, reset

Event = dict[str, Any]
"""What a client is told, as the poll has it on the wire."""

BROKEN = (OSError, http.client.HTTPException, Cut, ConnectionClosed, InvalidMessage, EOFError)
"""What a client sees of a connection that was cut."""

RELATIVE = ("now", "last:", "first")
CODES = {1012: "restart", 1013: "deactivated", 4000: "replaced", 4001: "process-closed"}


class Client(ABC):
    """A page that follows channels.

    Args:
        tab: Whose own channels it can read; `None` for a page without a cookie.
        address: Where it connects; by default where its tab does.
    """

    stays: ClassVar[bool] = True
    """Whether one connection brings more than one answer."""

    positioned: ClassVar[bool] = True
    """Whether the client names positions, and is told them."""

    stubborn: ClassVar[bool] = False
    """Whether the client comes back by itself, and opens its own client process."""

    def __init__(self, tab: Tab | None, address: Address) -> None:
        self.tab = tab
        self.address = address
        self.base = "/comet" if tab is None else tab.url
        self.positions: dict[str, str] = {}
        self.connected = 0  # how often it has opened a connection that stays, or asked
        self._events: deque[Event] = deque()

    @property
    def cookie(self) -> str:
        return "" if self.tab is None else self.tab.cookie

    def follow(self, starts: dict[str, str]) -> list[Event]:
        """Begin to follow channels; return where it is on those it did not name a position for."""
        self.begin(starts)
        asked = [name for name, start in starts.items() if start.startswith(RELATIVE)]
        return [self.next() for _ in asked] if self.positioned else []

    def begin(self, starts: dict[str, str]) -> None:
        """Begin to follow channels; what it is told is still to be read."""
        self.positions = dict(starts)
        self.resume()

    def next(self) -> Event:
        """Return the next event, and take note of its position."""
        while not self._events:
            self._events += self.read()
        event = self._events.popleft()
        self.note(event)
        return event

    def note(self, event: Event) -> None:
        if "position" in event:
            self.positions[event["channel"]] = event["position"]
        elif "channel" in event:
            self.positions.pop(event["channel"], None)

    def data(self, count: int) -> list[Any]:
        """Return the values of the next events, which must all be messages."""
        found = []
        for _ in range(count):
            event = self.next()
            assert "data" in event, event
            found.append(event["data"])
        return found

    def told(self, error: str, reason: str | None = None) -> tuple[str | None, ...]:
        """What an error is called here: error, reason."""
        return (error, reason)

    def error(self) -> tuple[str | None, ...]:
        """Return the next event as it must be: an error with its reason."""
        event = self.next()
        assert "error" in event, event
        return (event["error"], event.get("reason"))

    def ensure_connected(self) -> None:  # noqa: B027 - for most there is nothing to do
        """Connect, if it is of those that ask again and again, and does not wait already."""

    @abstractmethod
    def resume(self) -> None:
        """Connect, from where it is."""

    @abstractmethod
    def read(self) -> list[Event]:
        """Wait for more events."""

    @abstractmethod
    def cut(self) -> None:
        """Lose the connection, and what was on its way."""


def write(event: protocol.Event) -> Event:
    """Return an event as the poll has it."""
    names = ("channel", "position", "error", "reason", "ahead", "data")
    told = {name: getattr(event, name) for name in names}
    told = {name: value for name, value in told.items() if value or name == "data"}
    if event.data is NO_DATA:
        del told["data"]
    return told


class Question:
    """A request that was sent, and whose answer is read later."""

    def __init__(self, address: Address, path: str, kind: str, body: str, cookie: str) -> None:
        self._connection: socket.socket = address.connect()
        self._connection.settimeout(PATIENCE)
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: {address.host}:{address.port}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            f"Cookie: {cookie}",
            "Connection: close",
        ]
        self._connection.sendall("\r\n".join([*head, "", body]).encode())

    def answer(self) -> Answer:
        with self._connection:
            response = http.client.HTTPResponse(self._connection)
            with response:
                response.begin()
                return read(response)

    def cut(self) -> None:
        reset(self._connection)


class Asking(Client):
    """A client that asks again and again: a request is held while it waits."""

    stays = False
    held: Question | None = None

    def read(self) -> list[Event]:
        self.ensure_connected()
        assert self.held is not None
        held, self.held = self.held, None
        answer = held.answer()
        if self.tab is not None:
            self.tab.keep(answer)
        return self.understand(answer)

    def ensure_connected(self) -> None:
        if self.held is None and not self._events:
            self.resume()

    def ask(self, kind: str, body: str) -> Question:
        self.connected += 1
        return Question(self.address, f"{self.base}/poll", kind, body, self.cookie)

    @abstractmethod
    def understand(self, answer: Answer) -> list[Event]:
        """Return the events of an answer."""

    def cut(self) -> None:
        if self.held is not None:
            self.held.cut()
        self.held = None
        self._events.clear()


class PollClient(Asking):
    def resume(self) -> None:
        self.held = self.ask("application/json", encode_poll(self.positions).decode())

    def understand(self, answer: Answer) -> list[Event]:
        if answer.status == 503:
            return [{"error": "deactivated"}]
        found = decode_answer(answer.body)
        if found.replaced:
            return [{"error": "replaced"}]
        return [write(event) for event in found.events]

    def follow(self, starts: dict[str, str]) -> list[Event]:
        found = super().follow(starts)
        self.ensure_connected()
        return found


class RegistrationClient(Asking):
    """The old protocol at a process endpoint with request numbers: the server keeps the positions.

    It knows one error, and is told nothing of where it is.
    """

    positioned = False
    number = 0

    def told(self, error: str, reason: str | None = None) -> tuple[str | None, ...]:
        kept = ("replaced", "deactivated", "process-closed")
        return (error if error in kept else "ended", None)

    def resume(self) -> None:
        names = "%0A".join(self.positions)
        body = f"registration={names}"
        if self.tab is not None:
            body += f"&number={self.number}"
        self.held = self.ask(COMET, body)

    def understand(self, answer: Answer) -> list[Event]:
        self.number += 1  # it has this answer
        if answer.status != 200:
            return [{"error": {503: "deactivated", 410: "process-closed"}[answer.status]}]
        if not answer.body:  # it looks the same as nothing within the timeout
            return [{"error": "replaced"}]
        return [self._pair(pair.decode()) for pair in answer.pairs]

    def _pair(self, pair: str) -> Event:
        name, _, message = pair.partition(":")
        if message == "ENDED_CHANNEL":
            return {"channel": unquote(name), "error": "ended"}
        try:
            value = json.loads(unquote(message))
        except ValueError:  # texts are sent as they are
            value = unquote(message)
        return {"channel": unquote(name), "data": value}

    def note(self, event: Event) -> None:
        pass  # it asks for the same channels as long as it likes


class SseClient(Client):
    stream: Sse | None = None
    last_id: str | None = None

    def begin(self, starts: dict[str, str]) -> None:
        self.names, self.last_id = list(starts), None
        super().begin(starts)

    def resume(self) -> None:
        self.cut()
        self.stream = self._open(self.last_id)

    def _open(self, last_event_id: str | None) -> Sse:
        starts: dict[str, str | None] = dict.fromkeys(self.names)
        if last_event_id is None:
            starts |= self.positions
        self.connected += 1
        return Sse.open(
            self.address,
            starts,
            self.base,
            Cookie=self.cookie,
            Last_Event_ID=last_event_id,
        )

    def read(self) -> list[Event]:
        if self.stream is None:
            self.resume()
        assert self.stream is not None
        if self.stream.status == 204:
            return [{"error": "over"}]
        try:
            event = self.stream.next()
        except Cut:
            if not self.stream.over:
                raise
            self.stream.connection.close()
            self.stream = None  # it ended cleanly: a browser comes back by itself
            return []
        if event.name == "#":
            return []
        self.last_id = event.id or self.last_id
        asked = [name for name in self.names if self.positions.get(name, "").startswith(RELATIVE)]
        found = read_events(Dispatched(event.name, event.data, event.id), self.names)
        return [write(one) for one in found if event.name != ":open" or one.channel in asked]

    def cut(self) -> None:
        if self.stream is not None:
            self.stream.cut()
        self.stream = None
        self._events.clear()


class WebSocketClient(Client):
    socket: Ws | None = None

    def resume(self) -> None:
        if self.socket is None:
            self.connected += 1
            self.socket = Ws(self.address, self.base, self.cookie)
        with contextlib.suppress(ConnectionClosed):  # as it will see when it reads
            self.socket.say(subscribe=self.positions)

    def read(self) -> list[Event]:
        if self.socket is None:
            self.resume()
        assert self.socket is not None
        try:
            return [self.socket.next()]
        except ConnectionClosed as error:
            if error.rcvd is None or error.rcvd.code not in CODES:
                raise
            self.cut()
            return [{"error": CODES[error.rcvd.code]}]

    def note(self, event: Event) -> None:
        super().note(event)
        if self.socket is None:
            return
        if "data" in event and event["channel"].startswith("~"):
            with contextlib.suppress(ConnectionClosed):  # as it will see when it reads
                self.socket.say(ack={event["channel"]: event["position"]})
        if event.get("error") == "full" and "position" in event:
            self.socket.say(subscribe={event["channel"]: event["position"]})

    def cut(self) -> None:
        if self.socket is not None:
            self.socket.cut()
        self.socket = None
        self._events.clear()


class PythonClient(Client):
    """The client that programs use: a loop over messages, of which a test takes one by one."""

    stubborn = True

    def __init__(self, tab: Tab | None, address: Address) -> None:
        super().__init__(tab, address)
        self._stack = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None
        self._messages: AsyncMessages[Any] | None = None
        self._loop: AsyncGenerator[Message[Any]] | None = None
        self._coming: concurrent.futures.Future[Message[Any]] | None = None
        self._asked: set[str] = set()  # channels of which it was not told yet where it is
        self._ended: set[str] = set()

    def resume(self) -> None:
        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal())
            name, _, value = self.cookie.partition("=")
            client = AsyncClient(
                f"http://{self.address.host}:{self.address.port}{self.base}",
                cookies={name: value} if value else None,
            )
            self._stack.enter_context(self._portal.wrap_async_context_manager(client))
            self._client = client
        if self._loop is None:
            self.connected += 1
            self._begin()

    def ensure_connected(self) -> None:
        if self._loop is None:
            self.resume()
        elif self._coming is None:
            self._go_on()

    def _begin(self) -> None:
        self._messages = self._client.follow(self.positions)
        self._asked = {n for n, at in self.positions.items() if at.startswith(RELATIVE)}
        self._ended = set()
        self._loop = aiter(self._messages)
        self._go_on()

    def _go_on(self) -> None:
        assert self._portal is not None
        assert self._loop is not None
        self._coming = self._portal.start_task_soon(anext, self._loop)

    def read(self) -> list[Event]:
        self.ensure_connected()
        assert self._portal is not None
        assert self._coming is not None
        assert self._messages is not None
        while not (events := self._notices()) and not self._coming.done():
            self._portal.call(anyio.lowlevel.checkpoint)
        if events or (events := self._notices()):
            return events
        coming, self._coming = self._coming, None
        try:
            message = coming.result()
        except StopAsyncIteration:
            return []
        except CometError as error:
            self._loop = None
            return self._understand(error)
        position = str(message.position)
        return [{"channel": message.channel, "position": position, "data": message.data}]

    def _notices(self) -> list[Event]:
        """Return where it is on channels that it asked for without a position, and which ended."""
        assert self._messages is not None
        places, closed = self._messages.positions, self._messages.closed
        there = [name for name in self._asked if name in places]
        ended = [n for n, why in closed.items() if why == "ended" and n not in self._ended]
        self._asked -= set(there)
        self._ended |= set(ended)
        return [{"channel": name, "position": places[name]} for name in there] + [
            {"channel": name, "error": "closed", "reason": "ended"} for name in ended
        ]

    def _understand(self, error: CometError) -> list[Event]:
        match error:
            case ChannelFull():
                place = {} if error.position is None else {"position": str(error.position)}
                return [{"channel": error.name, "error": "full", **place}]
            case ChannelClosed(reason="forbidden"):
                return [{"channel": error.name, "error": "forbidden"}]
            case ChannelClosed():
                return [{"channel": error.name, "error": "closed", "reason": error.reason}]
            case Replaced():
                return [{"error": "replaced"}]
            case ProcessClosed():
                return [{"error": "process-closed"}]
        raise error

    def cut(self) -> None:
        self._events.clear()
        if self._coming is not None:
            self._coming.cancel()
            concurrent.futures.wait([self._coming])
        if self._loop is not None:
            assert self._portal is not None
            self._portal.call(self._loop.aclose)
        self._coming = self._loop = self._portal = None
        self._stack.close()


CLIENTS: dict[str, type[Client]] = {
    "registration": RegistrationClient,
    "poll": PollClient,
    "sse": SseClient,
    "websocket": WebSocketClient,
    "python": PythonClient,
}

BY_HAND = [name for name, client in CLIENTS.items() if not client.stubborn]


def by_hand_only() -> pytest.MarkDecorator:
    """Leave out the client that comes back by itself, and opens a client process."""
    return pytest.mark.parametrize("transport", BY_HAND)


MakeClient = Callable[..., Client]
