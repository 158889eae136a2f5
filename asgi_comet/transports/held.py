"""Held requests: wait until there is something to answer, or the client has disconnected.

Owns the ways in which a held request ends, and the answer to each. The request's own task waits in
`receive()`, which returns at once when the client disconnects; waking the request cancels that
wait. There is no second task, no future and no timer of the loop. Must not know the messages.
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
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.transports.access import ProcessGone, enter, leave
from asgi_comet.transports.checking import deactivated
from asgi_comet.transports.counting import transport_of

__all__ = ["Farewell", "Hold", "ended", "make_hold"]

ARRIVAL = 1.0  # seconds


class Farewell(NamedTuple):
    """The answers of a transport to requests that ended without messages.

    Attributes:
        kind: The content type.
        replaced: The body if a newer connection reads the channels.
        moved: The body if the session has another id: the client repeats the request at once.
    """

    kind: bytes
    replaced: bytes
    moved: bytes


class Hold(Listener):
    """A held request, whose connection waits in `receive()`; for asyncio.

    It is registered as a connection while its context lasts. The wait is cancelled as in
    `_runtime.waiting.Interrupt`, inlined here because this is the hot path.

    Args:
        node: The parts of the Comet.
        exchange: The request.
        process: The client process of the request, if any.
        reads: The client process whose own channels the request reads, if any.
    """

    __slots__ = ("_task", "exchange", "forbidden", "node", "process", "reads")

    def __init__(
        self, node: Node, exchange: Exchange, process: Client | None, reads: Client | None
    ) -> None:
        super().__init__(transport_of(node, exchange))
        self.node: Node = node
        self.exchange: Exchange = exchange
        self.process: Client | None = process
        self.reads: Client | None = reads
        self.forbidden: Sequence[Notice] = ()  # channels that the client may no longer read
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        node = self.node
        enter(node, self.exchange, self.process, self, node.activation.hold())

    def __exit__(self, *_: object) -> None:
        leave(self.node, self.process, self)

    def forbid(self, feed: Feed) -> None:
        """Detach from a feed, and let the answer say that the client may not read it."""
        feed.outcomes.lose(self)
        feed.remove(self)
        del self.cursors[feed]
        self.forbidden = (*self.forbidden, Notice(feed.name, "forbidden"))
        self.wake(Wake.MESSAGE)

    def rouse(self) -> None:
        """Resume the request."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self, receive: Receive) -> Wake:
        """Wait until woken, or until the client has disconnected.

        Returns:
            The reason; `Wake.GONE` only if the connection is closed.
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

    def why(self, woken: Wake) -> Wake:
        """Return the reason why the request ended, the most important one of several.

        Args:
            woken: The reason why the wait ended.
        """
        return ended(self) or _still_reading(self.reads, self, woken)

    async def farewell(self, why: Wake, say: Farewell) -> bool:
        """Answer a request that ended without messages; return whether it did.

        Raises:
            Refusal: 503: push is deactivated.
            ProcessGone: The client process has closed.
            ClientGone: The client has disconnected.
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
                await answer(self.node, self.exchange, say.kind, say.replaced)
            case _:  # MOVED
                # The client repeats the request at once, with the old cookie until the answer to
                # the login has arrived.
                await self.node.clock.sleep_until(self.node.clock.now() + ARRIVAL)
                await answer(self.node, self.exchange, say.kind, say.moved)
        return True


class ScopeHold(Hold):
    """A held request that waits in an anyio cancel scope, for event loops other than asyncio's."""

    __slots__ = ("_scope",)

    def __init__(
        self, node: Node, exchange: Exchange, process: Client | None, reads: Client | None
    ) -> None:
        super().__init__(node, exchange, process, reads)
        self._scope = anyio.CancelScope()

    def rouse(self) -> None:
        """Resume the request."""
        self._scope.cancel()

    async def wait(self, receive: Receive) -> Wake:
        """Wait until woken, or until the client has disconnected."""
        with self._scope:
            while self.woken is None:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone()
        return self.woken or Wake.GONE


def make_hold(node: Node, exchange: Exchange, process: Client | None, reads: Client | None) -> Hold:
    """Make a held request for the running event loop."""
    kind = Hold if node.loop.asyncio else ScopeHold
    return kind(node, exchange, process, reads)


ENDS = frozenset([Wake.CLOSED, Wake.DEACTIVATED, Wake.GONE, Wake.MOVED, Wake.REPLACED])


def ended(listener: Listener) -> Wake | None:
    """Return the reason why a held request gets no messages; `None` if it may.

    The first reason has woken the request, but others may have come during a wait for the
    application.
    """
    if listener.woken in ENDS:
        return listener.woken
    moved = listener.claim is not None and listener.claim.stale
    return Wake.MOVED if moved else None


def _still_reading(process: Client | None, listener: Listener, why: Wake) -> Wake:
    """Tell why a hold ended: replaced, if a newer connection reads the process' own channels.

    A message in the same moment is then for the newer connection.
    """
    replaced = process is not None and process.reader is not listener
    return Wake.REPLACED if replaced and why in (Wake.MESSAGE, Wake.TIMEOUT) else why
