"""Notifications, as returned by `notify`, and their receipts.

Owns the state of a notification and of a subscription, and the wait for acknowledgements: clients
send their positions anyway, so a wait causes no traffic and needs one timer. Must not know how
notifications are delivered.

A disconnected client may resume during a wait, so a broken connection settles nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from asgi_comet._runtime.fairness import Slice
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timer
from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.channels import Channel
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.outcomes import Awaited, Outcome, Outcomes
from asgi_comet.identity.process import ClientProcess
from asgi_comet.notify.jobs import Outbox

__all__ = ["Notification", "Receipt", "Subscription", "Wait"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The client processes that have a notification.

    Attributes:
        acknowledged: Processes that acknowledged the notification.
        silent: Processes that the notification was sent to, but that never acknowledged any message
            on this channel. A native `EventSource` acknowledges only when it reconnects.
        missing: All other processes: the notification was not prepared, published or sent, or not
            acknowledged by a client that acknowledges; or the client was told `full` instead.
    """

    acknowledged: tuple[ClientProcess, ...]
    silent: tuple[ClientProcess, ...]
    missing: tuple[ClientProcess, ...]


class Notification:
    """A notification on its way; it is delivered even if this object is dropped.

    Await it until it is published to all listeners; the result is the number of client processes
    that it went to, without processes that were left out. `received` returns the processes that
    have it.

    Await it in the lifespan's event loop, any number of times. Cancelling a wait has no other
    effect. A dropped notification takes no memory; a kept one, an entry per listener.
    """

    __slots__ = ("__weakref__", "_done", "_runtime", "_sent", "_waits")

    def __init__(self, runtime: Runtime, *, done: bool = False) -> None:
        self._runtime = runtime
        self._sent: dict[Subscription, Stored | None] = {}
        self._done = done  # handed out to all subscriptions
        self._waits: set[Wait] = set()

    def __await__(self) -> Generator[object, object, int]:
        return self._count().__await__()

    async def received(self, timeout: float = 30.0) -> Receipt:  # noqa: ASYNC109 - on our clock
        """Wait for acknowledgements of all client processes, and return the receipt.

        Args:
            timeout: Seconds to wait at most, including the time until publication.

        Returns:
            The receipt, as soon as every client process has acknowledged or closed. A silent client
            never acknowledges, so with one the wait takes the whole time.

        Raises:
            NotRunning: The lifespan does not run.
            RuntimeError: The current event loop is not the lifespan's.
        """
        self._check()
        wait = Wait()
        self._runtime.timers.start(wait, timeout)
        try:
            await self._dispatched(wait)
            await self._watch(wait)
            await wait.done.wait()
            return await self._receipt()
        finally:
            self._runtime.timers.stop(wait)
            wait.end()

    def _record(self, subscription: Any, stored: Stored | None) -> None:
        """Record what was published to a subscription; `None`: nothing could be. Thread-safe."""
        if stored is None:
            self._sent.setdefault(subscription, None)  # the process may have closed right after
        else:
            self._sent[subscription] = stored

    def _finish(self) -> None:
        """Mark the notification as handed out to all subscriptions. Thread-safe."""
        self._done = True
        if self._waits:
            self._runtime.loop.run(self._tell)

    def _check(self) -> None:
        self._runtime.loop.check()
        self._runtime.loop.check_here()

    async def _count(self) -> int:
        self._check()
        await self._dispatched(Wait())
        return sum(stored is not None for stored in self._sent.values())

    async def _dispatched(self, wait: Wait) -> None:
        self._waits.add(wait)
        try:
            if not self._done:  # read last: from now on, `_finish` sets the event
                await wait.dispatched.wait()
        finally:
            self._waits.discard(wait)

    def _tell(self) -> None:
        for wait in self._waits:
            wait.dispatched.set()

    async def _watch(self, wait: Wait) -> None:
        slice_ = Slice()
        for subscription, stored in list(self._sent.items()):
            if stored is not None:
                wait.watch(subscription, await _offset(stored))
            if slice_.used:
                await slice_.yield_()
        wait.begin()

    async def _receipt(self) -> Receipt:
        acknowledged, silent, missing = list[ClientProcess](), list[ClientProcess](), []
        slice_ = Slice()
        for subscription, stored in list(self._sent.items()):
            offset = None if stored is None else await _offset(stored)
            outcomes = subscription.feed.outcomes
            if offset is None or subscription.feed.sent < offset:
                missing.append(subscription.process)
            elif outcomes.of(offset) is Outcome.SUCCESS:
                acknowledged.append(subscription.process)
            else:
                known = outcomes.confirmed or offset <= outcomes.skipped
                (missing if known else silent).append(subscription.process)
            if slice_.used:
                await slice_.yield_()
        return Receipt(tuple(acknowledged), tuple(silent), tuple(missing))


async def _offset(stored: Stored) -> int:
    return stored if isinstance(stored, int) else (await stored()).offset


class Wait(Timer):
    """One call of `received`, which waits for acknowledgements. In the loop's thread.

    Attributes:
        dispatched: Set once the notification is published, or at the timeout.
        done: Set once every client process is settled, or at the timeout.
    """

    __slots__ = ("_begun", "_left", "_watched", "dispatched", "done")

    def __init__(self) -> None:
        super().__init__()
        self.dispatched: anyio.Event = anyio.Event()
        self.done: anyio.Event = anyio.Event()
        self._begun = False
        self._left: set[Subscription] = set()
        self._watched: list[tuple[Outcomes, Awaited]] = []

    def watch(self, subscription: Subscription, offset: int) -> None:
        """Wait for the process of a subscription as well, unless its outcome is known."""
        outcomes = subscription.feed.outcomes
        if offset <= outcomes.skipped or outcomes.of(offset) is Outcome.SUCCESS:
            return
        self._left.add(subscription)
        # The wait is the only listener: a broken connection changes nothing.
        awaited = Awaited(offset, {self}, partial(self.settle, subscription))
        outcomes.watch(awaited)
        self._watched.append((outcomes, awaited))
        subscription.waits.add(self)
        if subscription.gone:  # read last: from now on, `call_off` settles it
            self.settle(subscription)

    def begin(self) -> None:
        """Start: all subscriptions are watched now."""
        self._begun = True
        self._look()

    def settle(self, subscription: Subscription, outcome: Outcome | None = None) -> None:
        """Stop waiting for a subscription: its client has acknowledged, or cannot."""
        del outcome
        self._left.discard(subscription)
        subscription.waits.discard(self)
        self._look()

    def expire(self) -> None:
        """End the wait at the timeout."""
        self.dispatched.set()
        self.done.set()

    def shut_down(self) -> None:
        """End the wait at shutdown; the receipt has the results so far."""
        self.expire()

    def end(self) -> None:
        """Remove the wait from the subscriptions that it watches."""
        for outcomes, awaited in self._watched:
            outcomes.unwatch(awaited)
        for subscription in self._left:
            subscription.waits.discard(self)

    def _look(self) -> None:
        if self._begun and not self._left:
            self.done.set()


@dataclass(slots=True, eq=False)
class Subscription(Outbox):
    """The subscription of a client process to a notifier, in a worker without a shared broker.

    Thread-safe, except for `call_off`.

    Attributes:
        channel: The channel, kept for `listen`.
        feed: The incarnation of the channel that messages go to.
        keys: The keys that the process listens to.
        waits: The waits for the process to acknowledge. Used only in the loop's thread.
    """

    channel: Channel[Any]
    feed: Feed
    keys: set[Hashable] = field(default_factory=set, init=False)
    waits: set[Wait] = field(default_factory=set, init=False)

    def call_off(self) -> None:
        """Stop the preparation and the waits of a subscription that is gone. In the loop."""
        if self.interrupt is not None:
            self.interrupt.fire()
        for wait in list(self.waits):
            wait.settle(self)
