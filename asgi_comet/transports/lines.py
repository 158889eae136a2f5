"""Listening to a client while there may be something to tell it.

Owns how the task of a connection hears both. In asyncio, where the server's own functions are
reached, it waits in `receive()` and is called off: one task per connection, and what is published
is sent without it. Anywhere else a second task receives, and none is ever called off: a `receive()`
that was wrapped may lose what it had in hand. Must not know what is sent.
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
    """One connection, as its task hears it."""

    __slots__ = ()

    direct: bool
    """Whether `send` may be run outside of the connection's task."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen while the context lasts."""
        yield

    @abstractmethod
    async def next(self) -> Message | None:
        """Return what the client says, or `None` once roused. Nothing that it says is lost."""

    @abstractmethod
    def rouse(self) -> None:
        """Have `next` return `None`, now or when it is called. In the loop's thread; idempotent."""


class OneTask(Line):
    """For asyncio and a server's own `receive`, which may be called off and called again.

    Args:
        receive: What the client says.
    """

    __slots__ = ("_interrupt", "_receive", "_roused")

    direct = True

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._roused = False
        self._interrupt: Interrupt | None = None

    async def next(self) -> Message | None:
        """Return what the client says, or `None` once roused."""
        if not self._roused:
            self._interrupt = Interrupt()
            try:
                message = await self._interrupt.run(self._receive)
            finally:
                self._interrupt = None
            return self._heard(message)
        return self._heard(None)

    def _heard(self, message: Message | None) -> Message | None:
        # A call, for coverage sees no line right after a wait that was called off.
        if message is None:
            self._roused = False
        return message

    def rouse(self) -> None:
        """Have `next` return `None`."""
        self._roused = True
        if self._interrupt is not None:
            self._interrupt.fire()


class TwoTasks(Line):
    """For any event loop and any `receive`.

    Args:
        receive: What the client says.
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
        """Listen while the context lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            yield
            group.cancel_scope.cancel()

    async def next(self) -> Message | None:
        """Return what the client says, or `None` once roused."""
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
        """Have `next` return `None`."""
        self._roused = True
        self._news.set()

    async def _listen(self) -> None:
        """Receive one message at a time: the next one when the last was taken."""
        over = False
        while not over:
            message = await self._receive()
            over = message["type"] in DISCONNECTS
            self._taken = anyio.Event()
            self._message = message
            self._news.set()
            await self._taken.wait()
