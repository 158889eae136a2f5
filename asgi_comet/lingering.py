"""How long a channel stays that nobody holds, or that has ended.

Owns the two waits of `Settings.linger` seconds. Must not know how a channel is ended.
"""

from __future__ import annotations

from collections.abc import Callable

from .feeds import Feed
from .timers import Timer, Timers

__all__ = ["Forget", "Linger"]


class Linger(Timer):
    """A dropped channel that had listeners: ended after a whole `linger` without any."""

    __slots__ = ("_end", "_feed", "_linger", "_timers", "_visits")

    def __init__(
        self, feed: Feed, timers: Timers, linger: float, end: Callable[[Feed], None]
    ) -> None:
        super().__init__()
        self._end = end
        self._feed = feed
        self._timers = timers
        self._linger = linger
        self._visits = -1

    def begin(self) -> None:
        """Wait for another `linger` seconds."""
        self._visits = self._feed.visits
        self._timers.start(self, self._linger)

    def expire(self) -> None:
        """End the channel if nobody came and nobody is there."""
        if self._feed.closed is not None:
            return
        if self._feed.listeners or self._feed.visits != self._visits:
            self.begin()
        else:
            self._end(self._feed)


class Forget(Timer):
    """A channel that ended: what it holds can be read until this expires."""

    __slots__ = ("_feed", "_linger", "_timers")

    def __init__(self, feed: Feed, timers: Timers, linger: float) -> None:
        super().__init__()
        self._feed = feed
        self._timers = timers
        self._linger = linger

    async def begin(self) -> None:
        """Wait for `linger` seconds."""
        self._timers.start(self, self._linger)

    def expire(self) -> None:
        """Forget the channel."""
        self._feed.directory.forget(self._feed)
