"""Lines: wait for messages of a client and for wake-ups at the same time.

Owns how the task of a connection waits for both. In asyncio, with the server's own `receive()`, the
task waits in `receive()` and the wait is cancelled to wake the task: one task per connection, and
published messages are sent without that task. Otherwise a second task receives, and is never
cancelled: a wrapped `receive()` may lose a message when cancelled. Must not know the messages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import Message, Receive

from asgi_comet._runtime.waiting import Interrupt

__all__ = ["Line", "OneTask", "TwoTasks"]

DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class Line(ABC):
    """The receiving side of one connection."""

    __slots__ = ()

    direct: bool
    """Whether `send` may run outside the connection's task."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Receive while the context lasts."""
        yield

    @abstractmethod
    async def next(self) -> Message | None:
        """Return the client's next message, or `None` once roused. No message is lost."""

    @abstractmethod
    def rouse(self) -> None:
        """Make `next` return `None`, now or at its next call. In the loop's thread; idempotent."""


class OneTask(Line):
    """For asyncio and a server's own `receive`, which may be cancelled and called again.

    Args:
        receive: The `receive` of the connection.
    """

    __slots__ = ("_interrupt", "_receive", "_roused")

    direct = True

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._roused = False
        self._interrupt: Interrupt | None = None

    async def next(self) -> Message | None:
        """Return the client's next message, or `None` once roused."""
        if not self._roused:
            self._interrupt = Interrupt()
            try:
                message = await self._interrupt.run(self._receive)
            finally:
                self._interrupt = None
            return self._received(message)
        return self._received(None)

    def _received(self, message: Message | None) -> Message | None:
        # A function, since coverage misses a line right after a cancelled wait.
        if message is None:
            self._roused = False
        return message

    def rouse(self) -> None:
        """Make `next` return `None`."""
        self._roused = True
        if self._interrupt is not None:
            self._interrupt.fire()


class TwoTasks(Line):
    """For any event loop and any `receive`.

    Args:
        receive: The `receive` of the connection.
    """

    __slots__ = ("_message", "_news", "_receive", "_roused", "_taken")

    direct = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._roused = False
        self._message: Message | None = None
        self._news = anyio.Event()
        self._taken = anyio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Receive while the context lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            yield
            group.cancel_scope.cancel()

    async def next(self) -> Message | None:
        """Return the client's next message, or `None` once roused."""
        while True:
            if self._message is not None:
                message, self._message = self._message, None
                self._taken.set()
                return message
            if self._roused:
                self._roused = False
                return None
            self._news = anyio.Event()
            await self._news.wait()

    def rouse(self) -> None:
        """Make `next` return `None`."""
        self._roused = True
        self._news.set()

    async def _listen(self) -> None:
        """Receive one message at a time; the next one when the last was taken."""
        gone = False
        while not gone:
            message = await self._receive()
            gone = message["type"] in DISCONNECTS
            self._taken = anyio.Event()
            self._message = message
            self._news.set()
            await self._taken.wait()
