"""How long a channel stays that nobody holds, or that has ended.

Owns the waits of `Settings.linger` seconds, and which member of a family goes before its time.
Must not know how a channel is ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from .clock import Clock
from .feeds import Feed
from .timers import Timer, Timers

__all__ = ["Forget", "Idle", "Leave", "Linger"]

M = TypeVar("M")

GRACE = 1.0  # seconds that a member of a family has for somebody to come, however many there are


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


class Leave(Timer):
    """A member of a family: ended after a whole `linger` in which nobody listened to it.

    Args:
        feed: Tells the feed of the member now.
        timers: Where it waits.
        linger: For how many seconds.
        end: Ends it.
    """

    __slots__ = ("_end", "_feed", "_linger", "_timers", "_visits")

    def __init__(
        self,
        feed: Callable[[], Feed],
        timers: Timers,
        linger: float,
        end: Callable[[Feed], None],
    ) -> None:
        super().__init__()
        self._end = end
        self._feed = feed
        self._timers = timers
        self._linger = linger
        self._visits = 0

    def observe(self, listeners: int) -> None:
        """Wait from when the last listener has left. In the loop's thread."""
        if listeners:
            self._timers.stop(self)
        elif self._feed().closed is None:
            self._visits = self._feed().visits
            self._timers.start(self, self._linger)

    def expire(self) -> None:
        """End the member, unless somebody was told meanwhile where it is."""
        feed = self._feed()
        if feed.closed is not None:
            return
        if feed.visits != self._visits:
            self.observe(len(feed.listeners))
        else:
            self._end(feed)


class Idle(Generic[M]):
    """The members of families that nobody listens to, by name, the longest without first.

    Not thread-safe but for `in`.

    Args:
        clock: What time it is.
    """

    __slots__ = ("_clock", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, tuple[M, float]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._since

    def add(self, name: str, member: M) -> None:
        """Nobody listens to a member from now on."""
        self._since[name] = member, self._clock.now()

    def touch(self, name: str) -> None:
        """Somebody asks for a member; if it is one of these, it is as if it began to be now."""
        found = self._since.pop(name, None)
        if found is not None:
            self.add(name, found[0])

    def discard(self, name: str) -> None:
        """Somebody listens, or it has ended."""
        self._since.pop(name, None)

    def pop(self) -> M | None:
        """Take out the first; `None` if all have been here for less than `GRACE` seconds."""
        for name, (member, since) in self._since.items():
            if self._clock.now() - since < GRACE:
                break
            del self._since[name]
            return member
        return None
