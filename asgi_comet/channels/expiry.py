"""Expiry of channels that are unused or have ended.

Owns the waits of `Settings.linger` seconds. Must not know how a channel ends.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.timers import Timer, Timers
from asgi_comet.channels.feed import Feed

__all__ = ["Leave", "Linger"]


class Linger(Timer):
    """Ends a dropped channel that had listeners after `linger` seconds without any.

    Args:
        feed: The feed of the channel.
        timers: The timers.
        linger: The time to wait, in seconds.
        end: Ends the channel.
        away: Returns whether the only client that may read has no connection. The channel is kept
            until that client is connected both at the beginning and at the end of a wait.
    """

    __slots__ = ("_away", "_end", "_feed", "_linger", "_timers", "_uses", "_was_away")

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
        self._uses = -1

    def begin(self) -> None:
        """Wait another `linger` seconds."""
        self._uses = self._feed.uses
        self._was_away = self._away()
        self._timers.start(self, self._linger)

    def expire(self) -> None:
        """End the channel if it had no listener and its client was not away; else wait again."""
        feed = self._feed
        if feed.over:
            return
        used = feed.listeners or feed.uses != self._uses
        if used or self._was_away or self._away():
            self.begin()
        else:
            self._end(self._feed)


class Leave(Timer):
    """Ends a member of a family `linger` seconds after its last listener and its last use.

    Args:
        feed: Returns the current feed of the member.
        timers: The timers.
        clock: The clock.
        end: Ends the member.
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
        """Start the wait when the last listener has left. Call in the loop's thread."""
        if listeners:
            self._timers.stop(self)
        elif not self._feed().over:
            self._timers.start(self, self._feed().linger)

    def expire(self) -> None:
        """End the member, unless the application has used it meanwhile."""
        feed = self._feed()
        if feed.over:
            return
        left = feed.used_at + feed.linger - self._clock.now()
        if left > 0:
            self._timers.start(self, left)
        else:
            self._end(feed)
