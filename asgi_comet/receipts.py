"""What `notify` returns: a notification on its way, and who has it.

Owns the wait for acknowledgements: from the positions that clients send anyway, with no traffic of
its own and one timer per wait. Must not know how a notification gets on its way.

A process that was away may resume within the wait, so a connection that breaks settles nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import anyio

from .brokers.base import Stored
from .outboxes import Outbox
from .outcomes import Awaited, Outcome, Outcomes
from .processes import ClientProcess
from .runtime import Runtime
from .timers import Timer
from .turns import Turn

__all__ = ["Notification", "Receipt", "Wait"]


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
        self._sent: dict[Outbox, Stored | None] = {}
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

    def record(self, outbox: Outbox, stored: Stored | None) -> None:
        """Take note of what was published to whom; `None`: it could not be. Thread-safe."""
        if stored is None:
            self._sent.setdefault(outbox, None)  # it may have closed right after
        else:
            self._sent[outbox] = stored

    def finish(self) -> None:
        """All have been seen to. Thread-safe."""
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
            if not self._done:  # after: whoever finishes it from now on tells
                await wait.dispatched.wait()
        finally:
            self._waits.discard(wait)

    def _tell(self) -> None:
        for wait in self._waits:
            wait.dispatched.set()

    async def _watch(self, wait: Wait) -> None:
        turn = Turn()
        for outbox, stored in list(self._sent.items()):
            if stored is not None:
                wait.watch(outbox, await _offset(stored))
            if turn.over:
                await turn.rest()
        wait.begin()

    async def _receipt(self) -> Receipt:
        acknowledged, silent, missing = list[ClientProcess](), list[ClientProcess](), []
        turn = Turn()
        for outbox, stored in list(self._sent.items()):
            offset = None if stored is None else await _offset(stored)
            outcomes = outbox.feed.outcomes
            if offset is None or outbox.feed.sent < offset:
                missing.append(outbox.process)
            elif outcomes.of(offset) is Outcome.SUCCESS:
                acknowledged.append(outbox.process)
            else:
                (missing if outcomes.confirmed else silent).append(outbox.process)
            if turn.over:
                await turn.rest()
        return Receipt(tuple(acknowledged), tuple(silent), tuple(missing))


async def _offset(stored: Stored) -> int:
    return stored if isinstance(stored, int) else await stored()


class Wait(Timer):
    """Somebody who waits for acknowledgements. In the loop's thread.

    Attributes:
        dispatched: Set once there is something to wait for.
        over: Set once there is nothing more.
    """

    __slots__ = ("_begun", "_left", "_watched", "dispatched", "over")

    def __init__(self) -> None:
        super().__init__()
        self.dispatched: anyio.Event = anyio.Event()
        self.over: anyio.Event = anyio.Event()
        self._begun = False
        self._left: set[Outbox] = set()
        self._watched: list[tuple[Outcomes, Awaited]] = []

    def watch(self, outbox: Outbox, offset: int) -> None:
        """Wait for a client process, too, unless it has acknowledged, or will never."""
        outcomes = outbox.feed.outcomes
        if outcomes.of(offset) is Outcome.SUCCESS:
            return
        self._left.add(outbox)
        # This is its only listener, and does not leave: a connection that breaks changes nothing.
        awaited = Awaited(offset, {self}, partial(self.settle, outbox))
        outcomes.watch(awaited)
        self._watched.append((outcomes, awaited))
        outbox.waits.add(self)
        if outbox.gone:  # after: whoever forgets it from now on tells
            self.settle(outbox)

    def begin(self) -> None:
        """There is nobody else to wait for."""
        self._begun = True
        self._look()

    def settle(self, outbox: Outbox, outcome: Outcome | None = None) -> None:
        """A client process has acknowledged, or never will."""
        del outcome
        self._left.discard(outbox)
        outbox.waits.discard(self)
        self._look()

    def expire(self) -> None:
        """It has lasted long enough."""
        self.dispatched.set()
        self.over.set()

    def hasten(self) -> None:
        """The receipt tells what is known."""
        self.expire()

    def end(self) -> None:
        """Wait no more."""
        for outcomes, awaited in self._watched:
            outcomes.unwatch(awaited)
        for outbox in self._left:
            outbox.waits.discard(self)

    def _look(self) -> None:
        if self._begun and not self._left:
            self.over.set()
