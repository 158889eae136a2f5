"""Holding a request: until there is something to say, or the client has left.

Owns how a request that is held costs nothing but itself: its own task waits in `receive()`, where
it learns at once that the client left, and waking it means calling that wait off. No second task,
no future, no timer of the loop. Must not know what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio
from starlette.types import Receive

from asgi_comet.feeds import Feed, Listener, Wake
from asgi_comet.messages import Notice

__all__ = ["Hold", "make_hold"]


class Hold(Listener):
    """A held request: a listener whose connection waits in `receive()`; for asyncio.

    It is called off as `interrupts.Interrupt` does it, written out here for it is the hot path.
    """

    __slots__ = ("_task", "forbidden")

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: Sequence[Notice] = ()  # what it may not read any more
        self._task: asyncio.Task[object] | None = None

    def forbid(self, feed: Feed) -> None:
        """Have the answer tell that it may not read a feed, and nothing of it."""
        feed.outcomes.lose(self)
        feed.remove(self)
        del self.cursors[feed]
        self.forbidden = (*self.forbidden, Notice(feed.name, "forbidden"))
        self.wake(Wake.MESSAGE)

    def rouse(self) -> None:
        """Let the request go on."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self, receive: Receive) -> Wake:
        """Wait until woken, or until the client has left.

        Returns:
            Why it woke; `Wake.GONE` only if the connection is closed.
        """
        if self.woken is not None:
            return self.woken
        self._task = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
        others = task.cancelling()
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return self.gone()
        except asyncio.CancelledError:
            why = self.reason()
            if why is None or task.uncancel() > others:
                raise
            return why
        finally:
            self._task = None


class ScopeHold(Hold):
    """The same through an anyio cancel scope, for event loops other than asyncio's."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        super().__init__()
        self._scope = anyio.CancelScope()

    def rouse(self) -> None:
        """Let the request go on."""
        self._scope.cancel()

    async def wait(self, receive: Receive) -> Wake:
        """Wait until woken, or until the client has left."""
        with self._scope:
            while self.woken is None:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone()
        return self.woken or Wake.GONE


def make_hold(in_asyncio: bool) -> Hold:
    """Make the kind of hold that the running loop needs."""
    return Hold() if in_asyncio else ScopeHold()
