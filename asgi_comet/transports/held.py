"""Held requests: they wait until there is something to say, or the client has left.

Owns which ends a held request can have, and what each is answered. And how a request that is held
costs nothing but itself: its own task waits in `receive()`, where it learns at once that the client
left, and waking it means calling that wait off. No second task, no future, no timer of the loop.
Must not know what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import anyio
from starlette.types import Receive

from asgi_comet.channels.feed import Feed, Listener, Wake
from asgi_comet.core.messages import Notice
from asgi_comet.http.exchange import ClientGone, Exchange, answer
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.transports.access import ProcessGone, enter, leave
from asgi_comet.transports.checking import deactivated

__all__ = ["Farewell", "Held", "Hold", "ended", "make_hold"]

ARRIVAL = 1.0  # seconds


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


ENDS = frozenset([Wake.CLOSED, Wake.DEACTIVATED, Wake.GONE, Wake.MOVED, Wake.REPLACED])


def ended(listener: Listener) -> Wake | None:
    """Tell why nothing may be told to a held request any more, whatever came for it meanwhile.

    A wait for the application may have lasted, and what came first has woken it.
    """
    if listener.woken in ENDS:
        return listener.woken
    moved = listener.caller is not None and listener.caller.moved
    return Wake.MOVED if moved else None


def _still_reading(process: ClientProcess | None, listener: Listener, why: Wake) -> Wake:
    """Tell why a hold ended: replaced, if a newer connection reads the process' own channels.

    Also if a message came in the same moment: then it is the newer one's.
    """
    replaced = process is not None and process.reader is not listener
    return Wake.REPLACED if replaced and why in (Wake.MESSAGE, Wake.TIMEOUT) else why


class Farewell(NamedTuple):
    """How a transport says that a request ended without messages.

    Attributes:
        kind: The content type.
        replaced: The body where a newer connection reads the channels.
        moved: The body where the session has another id: the client comes back at once.
    """

    kind: bytes
    replaced: bytes
    moved: bytes


class Held:
    """A request while it is held: counted in as long as the context lasts.

    Args:
        hub: The rooms.
        exchange: The request.
        process: Whose it is; `None` for nobody's.
        hold: The same, as it hears of messages.
        reads: Whose own channels it reads; `None` for nobody's.
    """

    __slots__ = ("_exchange", "_hold", "_hub", "_process", "_reads")

    def __init__(
        self,
        hub: Hub,
        exchange: Exchange,
        process: ClientProcess | None,
        hold: Hold,
        reads: ClientProcess | None,
    ) -> None:
        self._hub = hub
        self._exchange = exchange
        self._process = process
        self._hold = hold
        self._reads = reads

    def __enter__(self) -> None:
        enter(self._hub, self._exchange, self._process, self._hold, self._hub.activation.hold())

    def __exit__(self, *_: object) -> None:
        leave(self._hub, self._process, self._hold)

    def why(self, woken: Wake) -> Wake:
        """Tell why the request ended, of all that may have come in the same moment.

        Args:
            woken: Why the wait ended.
        """
        return ended(self._hold) or _still_reading(self._reads, self._hold, woken)

    async def farewell(self, why: Wake, say: Farewell) -> bool:
        """Answer a request that ended without messages; tell whether it was one of these.

        Raises:
            Refusal: 503: push is deactivated.
            ProcessGone: The client process has closed.
            ClientGone: Nobody is there to answer.
        """
        match why:
            case Wake.MESSAGE | Wake.TIMEOUT:
                return False
            case Wake.DEACTIVATED:
                raise deactivated()
            case Wake.CLOSED:
                raise ProcessGone
            case Wake.GONE:
                raise ClientGone("while it was held")
            case Wake.REPLACED:
                await answer(self._hub, self._exchange, say.kind, say.replaced)
            case _:  # MOVED
                # The client comes back at once, and until the answer to the login is there with the
                # old cookie.
                await self._hub.clock.sleep_until(self._hub.clock.now() + ARRIVAL)
                await answer(self._hub, self._exchange, say.kind, say.moved)
        return True
