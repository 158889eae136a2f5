"""The fan-out: one flush wakes the listeners of published messages, for all transports.

Owns which listeners wake, and when: a publish marks its feed, and one task wakes the listeners of
all marked feeds in batches, without a task, timer or queue item per channel or delivery.
Must not know names, sources, identities, or the bytes that a transport sends.

A listener that woke reads all its channels, so messages published together go out in one answer.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator

import anyio
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.counters import Counters
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.timers import BATCH
from asgi_comet.channels.feed import Feed, Listener, Wake
from asgi_comet.channels.sampling import EVERY, Sample
from asgi_comet.log_events import event

__all__ = ["Fanout"]

_logger = logging.getLogger(__name__)


class Fanout:
    """All listeners, and the flush that wakes them.

    Args:
        loop: The thread of the listeners.
        clock: The clock.
        counters: What was delivered, and how soon.
    """

    def __init__(self, loop: LoopThread, clock: Clock, counters: Counters) -> None:
        self._loop = loop
        self._clock = clock
        self._transports = tuple(counters.transports.values())
        self._flushed = 0  # feeds
        self._marked: deque[Feed] = deque()
        self._ending: deque[tuple[list[Listener], Wake]] = deque()
        self._work = anyio.Event()
        self.listeners: set[Listener] = set()

    def appended(self, feed: Feed) -> None:
        """Schedule the listeners of a feed with a new message. Thread-safe; never waits."""
        # A listener adds itself before it reads the history, so a listener that is not added yet
        # reads the message anyway.
        if feed.listeners:
            self.mark(feed)

    def close(self, feed: Feed, reason: str) -> bool:
        """End a feed: its listeners get the remaining messages and `closed`. Thread-safe.

        Returns:
            Whether the feed was still open.
        """
        with feed.lock:
            if feed.closed is not None:
                return False
            feed.closed = reason
        self.mark(feed)
        return True

    def mark(self, feed: Feed) -> None:
        """Schedule the listeners of a feed for the next flush. Thread-safe."""
        if not feed.marked:
            feed.marked_at = self._clock.now()
            feed.marked = True
            self._marked.append(feed)
            self._loop.run(self._nudge)

    def attach(self, listener: Listener, feed: Feed) -> None:
        """Attach a listener to a feed, at its current end."""
        feed.add(listener)  # first: a message published from now on wakes the listener
        listener.cursors[feed] = feed.history.top

    def join(self, listeners: Iterable[Listener], feed: Feed) -> None:
        """Attach the listeners that waited for a new feed, from its first message on."""
        place = feed.directory, feed.name
        for listener in listeners:
            if listener in self.listeners and place in listener.expected:
                listener.expected = tuple(one for one in listener.expected if one != place)
                self.begin(listener, feed)

    def begin(self, listener: Listener, feed: Feed) -> None:
        """Attach a listener to a feed, from its first message on."""
        feed.add(listener)
        listener.cursors[feed] = 0
        self.mark(feed)

    def leave(self, listener: Listener, feed: Feed) -> None:
        """Detach a listener from one feed."""
        feed.remove(listener)
        del listener.cursors[feed]

    def detach(self, listener: Listener) -> None:
        """Detach a listener from all feeds. Idempotent."""
        self.listeners.discard(listener)
        for feed in listener.cursors:
            feed.remove(listener)
        for directory, name in listener.expected:
            directory.unexpect(name, listener)
        listener.expected = ()

    def end(self, why: Wake) -> None:
        """Wake every current listener, in batches. Idempotent."""
        self._ending.append((list(self.listeners), why))
        self._nudge()

    async def run(self) -> None:
        """Flush until cancelled. Only this task wakes listeners."""
        while True:
            self._work = anyio.Event()
            await self.flush()
            await self._work.wait()

    async def flush(self) -> None:
        """Wake the listeners of marked feeds and those to end, one batch per turn of the loop."""
        while self._ending or self._marked:
            if self._ending:
                listeners, why = self._ending.popleft()
                for batch in _batches(listeners):
                    for listener in batch:
                        listener.wake(why)
                    await checkpoint()
            else:
                feed = self._marked.popleft()
                marked_at, feed.marked = feed.marked_at, False  # first: a publish marks it again
                listeners = list(feed.listeners)
                if self._flushed % EVERY == 0 and listeners:
                    feed.sample = Sample(feed.top, marked_at, listeners)
                self._flushed += 1
                await self._flush(feed, listeners, marked_at)

    async def _flush(self, feed: Feed, listeners: list[Listener], marked_at: float) -> None:
        before = [one.delivered for one in self._transports]
        now = taken = self._clock.now()
        for batch in _batches(listeners):
            for listener in batch:
                try:
                    listener.notice(feed, now)
                except Exception:  # of one listener; the others must still be woken
                    _logger.exception(
                        "a listener failed and is dropped", extra=event("internal.failed")
                    )
                    listener.wake(Wake.GONE)
            taken = self._clock.now()
            await checkpoint()
        for one, delivered in zip(self._transports, before, strict=True):
            if one.delivered != delivered:
                one.delivery.observe(taken - marked_at)

    def _nudge(self) -> None:
        self._work.set()


def _batches(listeners: list[Listener]) -> Iterator[list[Listener]]:
    for start in range(0, len(listeners), BATCH):
        yield listeners[start : start + BATCH]
