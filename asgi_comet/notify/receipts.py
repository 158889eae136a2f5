"""Notifications: the object that `notify` returns, and the receipt that it gives.

Owns the state of a notification and of a subscription, and the wait for acknowledgements: clients
send their positions anyway, so a wait causes no traffic and needs one timer. Must not know how
notifications are handed out.

A client that was away may resume while a wait lasts, so a broken connection settles nothing.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Generator, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from asgi_comet._runtime.fairness import Turn
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timer
from asgi_comet._runtime.waiting import Interrupt
from asgi_comet.brokers.base import Stored
from asgi_comet.channels.channels import Channel
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.outcomes import Awaited, Outcome, Outcomes
from asgi_comet.identity.process import ClientProcess
from asgi_comet.notify.preparing import Preparation, Unfinished

__all__ = ["Job", "Notification", "Receipt", "Subscription", "Wait"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Who has a notification.

    Attributes:
        acknowledged: The client processes whose clients said so, by coming back with its position.
        silent: Those that it was sent to, of which nobody knows: on this channel their clients
            never acknowledged anything. Native `EventSource` does not until it reconnects.
        missing: The others. It could not be prepared or published for them, was never sent, or
            not acknowledged by a client that acknowledges.
    """

    acknowledged: tuple[ClientProcess, ...]
    silent: tuple[ClientProcess, ...]
    missing: tuple[ClientProcess, ...]


class Notification:
    """A notification that is on its way whether or not anybody keeps this.

    Awaiting it waits until it is published to everyone who listened, after which nothing of it
    depends on the caller, and gives the number of client processes that it went to: those that were
    left out, or that it was not for, do not count. `received` tells who has it.

    Awaited in the lifespan's event loop, any number of times. A cancelled wait changes nothing. One
    that nobody keeps costs nothing; one that is kept, an entry per listener.
    """

    __slots__ = ("__weakref__", "_done", "_runtime", "_sent", "_waits")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sent: dict[Subscription, Stored | None] = {}
        self._done = False
        self._waits: set[Wait] = set()

    def __await__(self) -> Generator[object, object, int]:
        return self._count().__await__()

    async def received(self, timeout: float = 30.0) -> Receipt:  # noqa: ASYNC109 - on our clock
        """Wait until everybody has it, and tell who has.

        Args:
            timeout: Seconds to wait at most, also for it to be published.

        Returns:
            The receipt, as soon as every client process has acknowledged it or has closed. A
            silent client never does, so with one it takes the whole time.

        Raises:
            NotRunning: The lifespan does not run.
            RuntimeError: This is another event loop than the lifespan's.
        """
        self._check()
        wait = Wait()
        self._runtime.timers.start(wait, timeout)
        try:
            await self._dispatched(wait)
            await self._watch(wait)
            await wait.over.wait()
            return await self._receipt()
        finally:
            self._runtime.timers.stop(wait)
            wait.end()

    def record(self, subscription: Subscription, stored: Stored | None) -> None:
        """Record what was published to a subscription; `None`: nothing could be. Thread-safe."""
        if stored is None:
            self._sent.setdefault(subscription, None)  # the process may have closed right after
        else:
            self._sent[subscription] = stored

    def finish(self) -> None:
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
            if not self._done:  # read last: from now on, `finish` sets the event
                await wait.dispatched.wait()
        finally:
            self._waits.discard(wait)

    def _tell(self) -> None:
        for wait in self._waits:
            wait.dispatched.set()

    async def _watch(self, wait: Wait) -> None:
        turn = Turn()
        for subscription, stored in list(self._sent.items()):
            if stored is not None:
                wait.watch(subscription, await _offset(stored))
            if turn.over:
                await turn.rest()
        wait.begin()

    async def _receipt(self) -> Receipt:
        acknowledged, silent, missing = list[ClientProcess](), list[ClientProcess](), []
        turn = Turn()
        for subscription, stored in list(self._sent.items()):
            offset = None if stored is None else await _offset(stored)
            outcomes = subscription.feed.outcomes
            if offset is None or subscription.feed.sent < offset:
                missing.append(subscription.process)
            elif outcomes.of(offset) is Outcome.SUCCESS:
                acknowledged.append(subscription.process)
            else:
                (missing if outcomes.confirmed else silent).append(subscription.process)
            if turn.over:
                await turn.rest()
        return Receipt(tuple(acknowledged), tuple(silent), tuple(missing))


async def _offset(stored: Stored) -> int:
    return stored if isinstance(stored, int) else (await stored()).offset


class Wait(Timer):
    """One call of `received`, which waits for acknowledgements. In the loop's thread.

    Attributes:
        dispatched: Set once the notification is handed out, or the time is over.
        over: Set once every client process is settled, or the time is over.
    """

    __slots__ = ("_begun", "_left", "_watched", "dispatched", "over")

    def __init__(self) -> None:
        super().__init__()
        self.dispatched: anyio.Event = anyio.Event()
        self.over: anyio.Event = anyio.Event()
        self._begun = False
        self._left: set[Subscription] = set()
        self._watched: list[tuple[Outcomes, Awaited]] = []

    def watch(self, subscription: Subscription, offset: int) -> None:
        """Wait for the process of a subscription as well, unless the client has acknowledged."""
        outcomes = subscription.feed.outcomes
        if outcomes.of(offset) is Outcome.SUCCESS:
            return
        self._left.add(subscription)
        # The wait is the only listener, and it stays: a connection that breaks changes nothing.
        awaited = Awaited(offset, {self}, partial(self.settle, subscription))
        outcomes.watch(awaited)
        self._watched.append((outcomes, awaited))
        subscription.waits.add(self)
        if subscription.gone:  # read last: from now on, `call_off` settles it
            self.settle(subscription)

    def begin(self) -> None:
        """Start to look for the end: all subscriptions are watched."""
        self._begun = True
        self._look()

    def settle(self, subscription: Subscription, outcome: Outcome | None = None) -> None:
        """Stop waiting for a subscription: its client has acknowledged, or never will."""
        del outcome
        self._left.discard(subscription)
        subscription.waits.discard(self)
        self._look()

    def expire(self) -> None:
        """End the wait: the time is over."""
        self.dispatched.set()
        self.over.set()

    def hasten(self) -> None:
        """End the wait: the server stops, and the receipt tells what is known."""
        self.expire()

    def end(self) -> None:
        """Remove the wait from the subscriptions that it watches."""
        for outcomes, awaited in self._watched:
            outcomes.unwatch(awaited)
        for subscription in self._left:
            subscription.waits.discard(self)

    def _look(self) -> None:
        if self._begun and not self._left:
            self.over.set()


@dataclass(slots=True, eq=False)
class Job:
    """One notification on its way to many subscriptions. Thread-safe.

    Attributes:
        targets: The subscriptions when the notification was made.
        not_for: A client process or a user to leave out; `None` leaves out nobody.
        preparation: How the message for each user is made.
        notification: What records the result, as long as the application keeps it.
        parts: One for handing the job out, and one for each subscription that has to prepare it.
            Changed only by the task that hands the job out, which finishes its own part last.
    """

    targets: tuple[Subscription, ...]
    not_for: Any
    preparation: Preparation
    notification: weakref.ref[Notification]
    parts: int = 1
    _done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def skips(self, process: ClientProcess) -> bool:
        """Tell whether a client process is left out."""
        if self.not_for is None:
            return False
        if isinstance(self.not_for, ClientProcess):
            return process is self.not_for
        return bool(process.user == self.not_for)

    def record(self, subscription: Subscription, stored: Stored | None) -> None:
        """Record what was published to a subscription, see `Notification.record`."""
        notification = self.notification()
        if notification is not None:
            notification.record(subscription, stored)

    def finish(self) -> None:
        """Finish one part; the last one finishes the notification."""
        with self._lock:
            self._done += 1
            last = self._done == self.parts
        if last and (notification := self.notification()) is not None:
            notification.finish()


@dataclass(slots=True, eq=False)
class Subscription:
    """What one client process has of a notifier. Its methods are thread-safe, but for `call_off`.

    Attributes:
        process: The client process.
        channel: Its channel, kept for `listen`.
        feed: The incarnation of the channel that messages go to.
        keys: The keys that the process listens to.
        pending: The jobs that are still to be prepared, in order; the first one is in preparation.
        begun: The preparation of the first job, if a worker thread could not finish it.
        gone: Whether the notifier has forgotten it: the process has closed, or its channel ended.
        interrupt: Calls off the preparation that runs in the loop.
        waits: The waits for the process to acknowledge. Used only in the loop's thread.
    """

    process: ClientProcess
    channel: Channel[Any]
    feed: Feed
    keys: set[Hashable] = field(default_factory=set)
    pending: deque[Job] = field(default_factory=deque)
    begun: Unfinished | None = None
    gone: bool = False
    interrupt: Interrupt | None = None
    waits: set[Wait] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def first(self) -> Job | None:
        """The job to prepare; `None` if nothing is pending."""
        with self._lock:
            return self.pending[0] if self.pending else None

    def put(self, job: Job) -> bool:
        """Add a job, unless the subscription is gone; return whether it is the first one."""
        with self._lock:
            if not self.gone:
                job.parts += 1
                self.pending.append(job)
                return len(self.pending) == 1
        job.record(self, None)
        return False

    def advance(self) -> Job | None:
        """Finish the first job, and return the next one; `None` if nothing is pending."""
        self.begun = None
        with self._lock:
            if self.gone:  # `drop` has finished all of them
                return None
            job = self.pending.popleft()
            after = self.pending[0] if self.pending else None
        job.finish()
        return after

    def drop(self) -> None:
        """Mark the subscription as gone, and finish its jobs: they do not reach the process."""
        with self._lock:
            self.gone = True
            jobs = list(self.pending)
            self.pending.clear()
        for job in jobs:
            job.record(self, None)
            job.finish()

    def call_off(self) -> None:
        """Stop the preparation and the waits of a subscription that is gone. In the loop."""
        if self.interrupt is not None:
            self.interrupt.fire()
        for wait in list(self.waits):
            wait.settle(self)
