"""The messages that a tab reads: connections that run the client half of the protocol.

Owns which messages have come. Must not know tabs, nor what should have come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Literal

import anyio

from asgi_comet._runtime.clock import Clock
from asgi_comet.errors import ChannelClosed, ChannelFull
from asgi_comet.protocol.events import Event
from asgi_comet.protocol.following import Following
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
from asgi_comet.testing.clock import moment
from asgi_comet.testing.lines import HttpConnection, Line, SocketConnection
from asgi_comet.testing.quiet import Watch
from asgi_comet.testing.registering import Register, Registering

__all__ = ["ChannelReader", "Reading", "Transport", "Way"]

Transport = Literal["websocket", "sse", "poll", "registration"]

PATIENCE = 5.0  # seconds that `next` waits for what the kit does not control


class ChannelReader:
    """A channel as one tab reads it.

    Args:
        name: The name that the server knows.
        watch: Sees whether anything can still come.

    Attributes:
        name: The name.
        messages: All values that have come, in order.
        positions: Their positions; empty texts over the registration protocol.
        moments: When they came, see `clock.moment`.
        made: When the tab began to ask.
        began: The position from which it reads, once the server has told.
        began_at: When the server told.
        error: Why nothing comes any more; `None` while it is read.
    """

    def __init__(self, name: str, watch: Watch) -> None:
        self.name: str = name
        self.messages: list[Any] = []
        self.positions: list[str] = []
        self.moments: list[int] = []
        self.made: int = moment()
        self.began: str = ""
        self.began_at: int = 0
        self.error: Exception | None = None
        self._watch = watch
        self._waiting: deque[Any] = deque()
        self._news = anyio.Event()

    def __repr__(self) -> str:
        return f"<ChannelReader {self.name!r}, {len(self.messages)} messages>"

    async def next(self, timeout: float = PATIENCE) -> Any:  # noqa: ASYNC109 - of a real clock
        """Return the next value.

        Args:
            timeout: Seconds to wait for what is not controlled by the test kit: a timer, a socket
                or a thread of the application. If there is nothing of the kind, it is known at once
                that nothing comes.

        Raises:
            AssertionError: Nothing comes; the text says what the tab has got before.
            ChannelFull: Messages were missed, with the position to go on from.
            ChannelClosed: The channel has ended.
            ProcessClosed: The client process of the tab has closed.
        """
        __tracebackhide__ = True
        await self._watch.settle()
        more = self._watch.acting or self._watch.pending()
        if not self._waiting and self.error is None and more:
            with anyio.move_on_after(timeout):
                self._news = anyio.Event()
                await self._news.wait()
        if self._waiting:
            return self._waiting.popleft()
        if self.error is not None:
            raise self.error
        raise AssertionError(
            f"expected a message on {self.name!r}, but nothing comes: {self._describe()}"
        )

    async def expect_silence(self) -> None:
        """Return once it is proven that nothing more comes by itself.

        Raises:
            AssertionError: A message has come, or the channel has ended.
            NotQuiet: It cannot be proven, because of a timer, socket or thread of the application;
                the text names the task.
        """
        __tracebackhide__ = True
        await self._watch.prove()
        if self._waiting:
            raise AssertionError(
                f"expected silence on {self.name!r}, got {list(self._waiting)!r:.200}"
            )
        if self.error is not None:
            raise AssertionError(f"expected silence on {self.name!r}, got the end: {self.error}")

    def _describe(self) -> str:
        if not self.messages:
            return "none has come before"
        return f"{len(self.messages)} came before, the last ones {self.messages[-3:]!r:.200}"

    # Called by the connection

    def begin(self, position: str) -> None:
        """Record from where it reads."""
        if not self.began and not any(self.positions):
            self.began, self.began_at = position, moment()

    def receive(self, event: Event) -> None:
        """Record a message."""
        self.messages.append(event.data)
        self.positions.append(event.position)
        self.moments.append(moment())
        self._waiting.append(event.data)
        self._news.set()

    def end(self, error: Exception) -> None:
        """Record that nothing comes any more."""
        if self.error is None:
            self.error = error
        self._news.set()


class Way(ABC):
    """How a tab asks the server.

    Attributes:
        line: The way that faults concern.
    """

    line: Line

    @abstractmethod
    async def open_process(self) -> str:
        """Return the path of the tab's client process, below PREFIX; open one first."""

    @abstractmethod
    async def ask(self, path: str, body: bytes, kind: str = "application/json") -> Reply:
        """Send a request.

        Raises:
            ConnectionError: The connection was cut.
        """

    @abstractmethod
    async def stream(self, path: str) -> HttpConnection:
        """Ask for an event stream; its head has come."""

    @abstractmethod
    async def connect(self, path: str) -> SocketConnection:
        """Open a WebSocket, whose handshake is still to be waited for."""


class Reading:
    """Follows channels over one connection at a time, from one connection to the next.

    Args:
        way: How to ask the server.
        clock: The clock of the test.
        channels: The channels, with their start positions.
        transport: The transport.

    Attributes:
        channels: The channels by name.
        transport: The transport.
        own: Whether it reads channels of the tab's client process.
        ended: Whether it reads no more, because it has left or nothing is left.
        away: Whether it waits before it asks the server again.
    """

    def __init__(
        self,
        way: Way,
        clock: Clock,
        channels: dict[ChannelReader, str],
        transport: Transport,
    ) -> None:
        self.channels: dict[str, ChannelReader] = {one.name: one for one in channels}
        self.transport: Transport = transport
        self.own: bool = transport == "registration" or any(n[0] == "~" for n in self.channels)
        self.ended: bool = False
        self.away: bool = False
        starts = {one.name: start for one, start in channels.items()}
        self._following: Following | Registering = (
            Registering(starts)
            if transport == "registration"
            else Following(starts, resume=False, transports=[transport], clock=clock.now)
        )
        self._way = way
        self._clock = clock
        self._scope = anyio.CancelScope()
        self._base = ""
        self._open: HttpConnection | SocketConnection | None = None

    @property
    def left(self) -> dict[ChannelReader, str]:
        """The channels that are still read, and where to go on with them."""
        starts = self._following.starts
        return {one: starts[name] for name, one in self.channels.items() if name in starts}

    def leave(self) -> None:
        """Leave the server."""
        self.ended = True
        self._scope.cancel()

    async def run(self) -> None:
        """Follow until nothing is left, or the server has left."""
        with self._scope:
            try:
                await self._run()
            except Exception as error:
                for one in self.channels.values():
                    one.end(error)
        self.ended = True
        self._close()

    async def _run(self) -> None:
        result: object = None
        while (step := self._following.go_on(result)) is not None:
            try:
                result = await self._do(step)
            except ConnectionError as error:
                code = getattr(self._open, "code", 0)
                result = error if isinstance(error, Lost) else Lost(str(error), code)
            while self._take():
                pass

    def _take(self) -> bool:
        """Take what has come; return whether there may be more."""
        following = self._following
        try:
            event = following.take()
        except (ChannelFull, ChannelClosed) as error:
            self.channels[error.name].end(error)
            return True
        for name, position in following.positions.items():
            self.channels[name].begin(position)
        if event is not None:
            self.channels[event.channel].receive(event)
            return True
        for name in self.channels.keys() - following.starts.keys():
            self.channels[name].end(ChannelClosed(name, "ended", followed=True))
        return False

    async def _do(self, step: Step | Register) -> object:
        way = self._way
        match step:
            case OpenProcess():
                self._base = await way.open_process()
            case Register():
                return await way.ask(f"{self._base}poll", step.body, "application/x-ocsigen-comet")
            case Post():
                return await way.ask(self._base + step.path, step.body)
            case OpenStream():
                self._open = stream = await way.stream(self._base + step.path)
                return Reply(stream.status, b"" if stream.status == 200 else await stream.read())
            case OpenSocket():
                self._open = socket = await way.connect(self._base + step.path)
                await socket.read()  # that it is open
            case Pause() if step.tries > 1:  # the first time it comes back at once
                self.away = True
                await self._clock.sleep_until(self._clock.now() + step.seconds)
                self.away = False
            case _:
                return await self._use(step)
        return None

    async def _use(self, step: Step | Register) -> object:
        """Do what needs an open connection."""
        match step:
            case Send() if isinstance(self._open, SocketConnection):
                self._open.send(step.text)
            case Read() if self._open is not None:
                return await self._open.read()
            case Close():
                self._close()
        return None

    def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened.leave()
