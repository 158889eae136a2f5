"""From a published message to the connections that listen: one flush for all transports.

Owns who is woken, and when: a publish marks its feed, one task wakes the listeners of all marked
feeds, in batches, and never builds a task, timer or queue item per channel or per delivery.
Must not know names, sources, identities, or what bytes a transport sends.

A listener that woke reads all its channels, so messages written in the same instant go out in one
answer whatever their number.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator

import anyio
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.timers import BATCH
from asgi_comet.channels.feed import Feed, Listener, Wake

__all__ = ["Fanout"]

_logger = logging.getLogger(__name__)


class Fanout:
    """All listeners, and the flush that wakes them.

    Args:
        loop: The thread that listeners live in.
        clock: What time it is.
    """

    def __init__(self, loop: LoopThread, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._marked: deque[Feed] = deque()
        self._ending: deque[tuple[list[Listener], Wake]] = deque()
        self._work = anyio.Event()
        self.listeners: set[Listener] = set()

    def appended(self, feed: Feed) -> None:
        """Have the listeners of a feed woken, which has a new message. Thread-safe; never waits."""
        # A listener adds itself before it reads the history, so a listener that is missing here
        # sees the message when it reads.
        if feed.listeners:
            self.mark(feed)

    def close(self, feed: Feed, reason: str) -> bool:
        """End a feed: its listeners read what remains and are told. Thread-safe.

        Returns:
            Whether it had not ended before.
        """
        with feed.lock:
            if feed.closed is not None:
                return False
            feed.closed = reason
        self.mark(feed)
        return True

    def mark(self, feed: Feed) -> None:
        """Have the listeners of a feed woken by the next flush. Thread-safe."""
        if not feed.marked:
            feed.marked = True
            self._marked.append(feed)
            self._loop.run(self._nudge)

    def attach(self, listener: Listener, feed: Feed) -> None:
        """Count a listener in on a feed, from what it holds now on."""
        feed.add(listener)  # first: what is published from now on wakes it
        listener.cursors[feed] = feed.history.top

    def join(self, listeners: Iterable[Listener], feed: Feed) -> None:
        """Count those in who wait for a feed that now exists, from its first message on."""
        place = feed.directory, feed.name
        for listener in listeners:
            if listener in self.listeners and place in listener.expected:
                listener.expected = tuple(one for one in listener.expected if one != place)
                self.begin(listener, feed)

    def begin(self, listener: Listener, feed: Feed) -> None:
        """Count a listener in on a feed from its first message on."""
        feed.add(listener)
        listener.cursors[feed] = 0
        self.mark(feed)

    def leave(self, listener: Listener, feed: Feed) -> None:
        """Count a listener out on one feed."""
        feed.remove(listener)
        del listener.cursors[feed]

    def detach(self, listener: Listener) -> None:
        """Count a listener out everywhere. Idempotent."""
        self.listeners.discard(listener)
        for feed in listener.cursors:
            feed.remove(listener)
        for directory, name in listener.expected:
            directory.unexpect(name, listener)
        listener.expected = ()

    def end(self, why: Wake) -> None:
        """Have every listener that is attached now woken, in batches. Idempotent."""
        self._ending.append((list(self.listeners), why))
        self._nudge()

    async def run(self) -> None:
        """Flush until cancelled: the one task that wakes listeners."""
        while True:
            self._work = anyio.Event()
            await self.flush()
            await self._work.wait()

    async def flush(self) -> None:
        """Wake all listeners of marked feeds, and those to be ended, a batch per turn."""
        while self._ending or self._marked:
            if self._ending:
                listeners, why = self._ending.popleft()
                for batch in _batches(listeners):
                    for listener in batch:
                        listener.wake(why)
                    await checkpoint()
            else:
                feed = self._marked.popleft()
                feed.marked = False  # before reading: a publish from now on marks it again
                now = self._clock.now()
                for batch in _batches(list(feed.listeners)):
                    for listener in batch:
                        try:
                            listener.notice(feed, now)
                        except Exception:  # is one's own, and must not reach the others
                            _logger.exception("a listener failed and is dropped")
                            listener.wake(Wake.GONE)
                    await checkpoint()

    def _nudge(self) -> None:
        self._work.set()


def _batches(listeners: list[Listener]) -> Iterator[list[Listener]]:
    for start in range(0, len(listeners), BATCH):
        yield listeners[start : start + BATCH]
