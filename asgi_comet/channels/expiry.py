"""How long a channel stays that nobody holds, or that has ended.

Owns the waits of `Settings.linger` seconds. Must not know how a channel is ended.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.timers import Timer, Timers
from asgi_comet.channels.feed import Feed

__all__ = ["Forget", "Leave", "Linger"]


class Linger(Timer):
    """A dropped channel that had listeners: ended after a whole `linger` without any.

    Args:
        feed: The feed of the channel.
        timers: Where it waits.
        linger: For how many seconds.
        end: Ends the channel.
        away: Tells whether the only client that may read it has no connection right now. It keeps
            the channel until it has been there for a whole `linger`, at its beginning and its end.
    """

    __slots__ = ("_away", "_end", "_feed", "_linger", "_timers", "_visits", "_was_away")

    def __init__(
        self,
        feed: Feed,
        timers: Timers,
        linger: float,
        end: Callable[[Feed], None],
        away: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._away = away
        self._was_away = False
        self._end = end
        self._feed = feed
        self._timers = timers
        self._linger = linger
        self._visits = -1

    def begin(self) -> None:
        """Wait for another `linger` seconds."""
        self._visits = self._feed.visits
        self._was_away = self._away()
        self._timers.start(self, self._linger)

    def expire(self) -> None:
        """End the channel if nobody came, nobody is there, and its reader is not just away."""
        feed = self._feed
        if feed.closed is not None:
            return
        used = feed.listeners or feed.visits != self._visits
        if used or self._was_away or self._away():
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


class Leave(Timer):
    """A member of a family: ended `linger` seconds after its last listener and its last use.

    Args:
        feed: Tells the feed of the member now.
        timers: Where it waits.
        clock: What time it is.
        end: Ends it.
    """

    __slots__ = ("_clock", "_end", "_feed", "_timers")

    def __init__(
        self,
        feed: Callable[[], Feed],
        timers: Timers,
        clock: Clock,
        end: Callable[[Feed], None],
    ) -> None:
        super().__init__()
        self._clock = clock
        self._end = end
        self._feed = feed
        self._timers = timers

    def observe(self, listeners: int) -> None:
        """Wait from when the last listener has left. In the loop's thread."""
        if listeners:
            self._timers.stop(self)
        elif self._feed().closed is None:
            self._timers.start(self, self._feed().linger)

    def expire(self) -> None:
        """End the member, unless the application has used it since the last listener left."""
        feed = self._feed()
        if feed.closed is not None:
            return
        left = feed.used_at + feed.linger - self._clock.now()
        if left > 0:
            self._timers.start(self, left)
        else:
            self._end(feed)
