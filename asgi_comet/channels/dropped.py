"""Channels without a name that the application has dropped: reclaimed once no client uses them.

Owns when a dropped channel is looked at. Must not know how a channel ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.directory import Place
from asgi_comet.channels.expiry import Linger
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.scope import Tab

__all__ = ["Dropped"]


class Dropped:
    """The dropped channels of one `Comet`. Thread-safe.

    Args:
        runtime: Runs the waits.
        linger: How many seconds a channel stays after its last listener.
        end: Ends a channel that is unused.
    """

    def __init__(self, runtime: Runtime, linger: float, end: Callable[[Feed], None]) -> None:
        self._runtime = runtime
        self._linger = linger
        self._end = end
        # Feeds whose Channel was garbage-collected, with their places. A finalizer may run
        # anywhere, even in a thread that holds the lock, so a finalizer only appends here.
        self._dropped: deque[tuple[Feed, Place]] = deque()

    def collect(self) -> None:
        """Reclaim dropped channels that were never used; start the linger time of the others."""
        for _ in range(len(self._dropped)):
            try:
                feed, place = self._dropped.popleft()
            except IndexError:  # pragma: no cover - another thread took it at this moment
                return
            if feed.uses == 0:
                self._end(feed)
            elif feed.owner is not None:
                continue  # any worker may read it: it ends with its client process
            elif not self._runtime.loop.running:
                self._dropped.append((feed, place))  # the linger time begins with the lifespan
            else:
                timers, linger = self._runtime.timers, self._linger
                dropped = Linger(feed, timers, linger, self._end, partial(_is_away, place))
                self._runtime.loop.run(dropped.begin)

    def add(self, feed: Feed, place: Place) -> None:
        """Record that the application has dropped a channel. Safe in finalizers."""
        self._dropped.append((feed, place))
        self._runtime.loop.run_soon(self.collect)


def _is_away(place: Place) -> bool:
    """Return whether a channel's only reader is a tab without a connection right now."""
    return isinstance(place.scope, Tab) and not place.scope.connections
