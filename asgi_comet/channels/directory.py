"""The channels of one scope by name: of the site, or of one client process.

Owns which names are taken, which ended channels can still be read, and which listeners wait for a
channel that does not exist yet. Bounded by the count of channels and by `ENDED_NAMES`.
Thread-safe, except for `expect` and `unexpect`, which belong to the loop's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from asgi_comet.channels.feed import Feed, Listener, Names
from asgi_comet.channels.scope import Owner, Scope
from asgi_comet.errors import NonUniqueChannelName, ProcessClosed

__all__ = ["Directory", "Place"]

ENDED_NAMES = 1000  # per directory: ended channels, and also names of forgotten ones


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a channel: the site, or a client process.

    Attributes:
        directory: The names of the place.
        prefix: The prefix of its names: empty, or `~`.
        url: Returns the URL where clients subscribe, as seen by the current request.
        scope: `SITE`, or the client process.
    """

    directory: Directory
    prefix: str
    url: Callable[[], str]
    scope: Scope | Owner = field(repr=False)


class Directory(Names):
    """Names and feeds.

    Args:
        lock: Shared by all directories, so that all channels are counted together.
        owner: The client process; `None` for the site.
    """

    __slots__ = ("_closed", "_ended", "_expected", "_live", "_past", "lock", "owner")

    def __init__(self, lock: threading.Lock, owner: str | None = None) -> None:
        self.owner: str | None = owner
        self._closed = False
        self.lock: threading.Lock = lock
        self._live: dict[str, Feed] = {}
        self._ended: dict[str, Feed] = {}  # readable for their `linger` time
        self._past: dict[str, None] = {}  # names of forgotten channels, the oldest first
        self._expected: dict[str, set[Listener]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def add(self, feed: Feed) -> set[Listener]:
        """Add a live feed; it replaces an ended one of the same name. The caller holds the lock.

        Returns:
            The listeners that waited for the feed; those of a shared one wait for `release`.

        Raises:
            NonUniqueChannelName: A live feed has the name.
            ProcessClosed: The client process has closed.
        """
        if self._closed:
            raise ProcessClosed(self.owner or "")
        if feed.name in self._live:
            raise NonUniqueChannelName(feed.name)
        self._live[feed.name] = feed
        self._ended.pop(feed.name, None)
        self._past.pop(feed.name, None)
        return set() if feed.owner is not None else self._expected.pop(feed.name, set())

    def release(self, name: str) -> set[Listener]:
        """Return the listeners that waited for a shared feed, which is live now."""
        with self.lock:
            return self._expected.pop(name, set())

    def replace(self, feed: Feed, successor: Feed) -> bool:
        """Replace a live feed by its next incarnation; return whether it was live."""
        with self.lock:
            if self._closed or self._live.get(feed.name) is not feed:
                return False
            self._live[feed.name] = successor
            successor.succeed(feed)
            return True

    def find(self, name: str) -> Feed | None:
        """Return the feed of a channel that is live or still readable."""
        return self._live.get(name) or self._ended.get(name)

    def close(self) -> list[Feed]:
        """Refuse further feeds, and return all present ones."""
        with self.lock:
            self._closed = True
        return self.feeds()

    def names(self) -> list[str]:
        """Return the names of the live channels."""
        with self.lock:
            return list(self._live)

    def feeds(self) -> list[Feed]:
        """Return all feeds, live or readable."""
        with self.lock:
            return [*self._live.values(), *self._ended.values()]

    def end(self, feed: Feed, *, keep: bool) -> bool:
        """Free the name of a feed that ended; return whether it was live."""
        with self.lock:
            if self._live.get(feed.name) is not feed:
                return False
            if keep:  # first: a reader without the lock finds the feed in one table
                self._keep(feed)
            del self._live[feed.name]
            return True

    def add_ended(self, feed: Feed) -> None:
        """Add a feed that has ended in another worker, and can be read."""
        with self.lock:
            self._keep(feed)

    def _keep(self, feed: Feed) -> None:
        self._ended[feed.name] = feed
        if len(self._ended) > ENDED_NAMES:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._remember(oldest)

    def forget(self, feed: Feed) -> None:
        """Forget a feed that ended, but remember its name."""
        with self.lock:
            if self._ended.get(feed.name) is feed:
                del self._ended[feed.name]
            if feed.name not in self._live:
                self._remember(feed.name)

    def is_past(self, name: str) -> bool:
        """Return whether a channel of that name was forgotten since the last `begin_anew`."""
        return name in self._past

    def remember(self, name: str) -> None:
        """Record that a channel of that name was forgotten."""
        with self.lock:
            self._remember(name)

    def begin_anew(self, name: str) -> None:
        """Forget past incarnations of this name: a `now` subscription starts fresh."""
        self._past.pop(name, None)

    def expect(self, name: str, listener: Listener) -> Feed | None:
        """Add a listener to those that wait for a channel.

        Returns:
            The feed, if another thread or worker has made it by now; the listener then does not
            wait.
        """
        with self.lock:
            feed = self.find(name)
            if feed is None or not (feed.local or feed.live):
                self._expected.setdefault(name, set()).add(listener)
                listener.expected = (*listener.expected, (self, name))
                return None
            return feed

    def unexpect(self, name: str, listener: Listener) -> None:
        """Remove a listener from those that wait for a channel."""
        with self.lock:
            waiting = self._expected.get(name)
            if waiting is not None:
                waiting.discard(listener)
                if not waiting:
                    del self._expected[name]

    def _remember(self, name: str) -> None:
        if self.owner is not None:  # the names of the site are not asked for
            self._past[name] = None
            if len(self._past) > ENDED_NAMES:
                del self._past[next(iter(self._past))]
