"""The limits on live members of families: in total, per client, and for all anonymous clients.

Owns which members have no listener, and which of these is closed to make room for another. Must not
know how a member is ended. Not thread-safe: the declarations hold their lock.

Clients choose the names of members, and each member costs the server a task. Without a limit per
client, one client could use up the total. Besides, Python's garbage collector scans the objects of
all members and stops the event loop meanwhile: 0.1 ms for each member.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from asgi_comet._runtime.clock import Clock
from asgi_comet.errors import TooManyFamilyChannels

if TYPE_CHECKING:
    from asgi_comet.channels.feed import Feed, Listener

__all__ = ["Bounds", "Share", "Shares"]

SCAN = 16  # members to search for one without recent use

GRACE = 1.0  # seconds that a member without listeners is kept in any case


class Used(Protocol):
    """A counted object that has a feed."""

    @property
    def feed(self) -> Feed:
        """The feed, which records when the application last used the channel."""
        ...


M = TypeVar("M", bound=Used)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one share.

    Attributes:
        setting: The name of the setting, for the error.
        limit: How many members count at most.
        elsewhere: Returns how many members count that are not here.
        listeners: Members with more listeners do not count; `None` counts all members.
        grace: How many seconds a member without a listener is kept before another may replace it.
    """

    setting: str
    limit: int
    elsewhere: Callable[[], int] = int
    listeners: int | None = None
    grace: float = 0.0


class Share(Generic[M]):
    """A set of members; those without a listener are ordered, the longest unused first.

    Args:
        bounds: The limits.
        clock: The clock.
    """

    __slots__ = ("_bounds", "_clock", "_idle", "_names")

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._names: set[str] = set()
        self._idle: dict[str, tuple[M, float]] = {}  # the member, and since when

    def __len__(self) -> int:
        return len(self._names)

    def note(self, name: str, member: M, listeners: int) -> None:
        """Record the count of a member's listeners."""
        most = self._bounds.listeners
        if most is None or listeners <= most:
            self._names.add(name)
        else:  # other clients keep the member alive
            self._names.discard(name)
        if listeners:
            self._idle.pop(name, None)
        elif name not in self._idle:
            self._idle[name] = member, self._clock.now()

    def touch(self, name: str) -> None:
        """Reset a member's idle time."""
        found = self._idle.pop(name, None)
        if found is not None:
            self._idle[name] = found[0], self._clock.now()

    def leave(self, name: str) -> None:
        """Remove a member that has ended."""
        self._names.discard(name)
        self._idle.pop(name, None)

    @property
    def barred(self) -> TooManyFamilyChannels | None:
        """The reason why no worker may make another member, if there is one.

        A worker that is below the limit by itself may still join a member of other workers.
        """
        if len(self._names) + self._bounds.elsewhere() < self._bounds.limit:
            return None
        return TooManyFamilyChannels(self._bounds.limit, self._bounds.setting)

    def make_room(self) -> M | None:
        """Remove and return the member to close before a new one starts.

        Returns:
            The member; `None` if there is room, or this worker may join a member of others.

        Raises:
            TooManyFamilyChannels: The limit is reached, and every member is in use.
        """
        if self.barred is None:
            return None
        self._sort_in()
        for name, (member, since) in self._idle.items():
            if self._clock.now() - since < self._bounds.grace:
                break
            del self._idle[name]
            return member
        if len(self._names) < self._bounds.limit:
            return None
        raise TooManyFamilyChannels(self._bounds.limit, self._bounds.setting)

    def _sort_in(self) -> None:
        """Move the first members behind the others that the application has used since."""
        for name, (member, since) in list(islice(self._idle.items(), SCAN)):
            used = member.feed.used_at
            if used > since:
                del self._idle[name]
                self._idle[name] = member, used


class Shares(Generic[M]):
    """The share of each client, of all anonymous clients, and of all clients.

    Args:
        most: How many members there may be in total.
        most_of_one: How many members one client may have alone.
        clock: The clock.
        elsewhere: Returns how many members only other workers have.
    """

    def __init__(
        self, most: int, most_of_one: int, clock: Clock, elsewhere: Callable[[], int] = int
    ) -> None:
        self._clock = clock
        setting = "max_family_channels_per_session"
        self._own: WeakKeyDictionary[object, Share[M]] = WeakKeyDictionary()
        self._one = Bounds(setting, most_of_one, listeners=1)
        self._all: Share[M] = Share(
            Bounds("max_family_channels", most, elsewhere, grace=GRACE), clock
        )
        # Members without listeners expire soon, so a visitor's new member is never refused: the
        # oldest one is closed.
        self._strangers: Share[M] = Share(Bounds(setting, most_of_one, listeners=0), clock)

    def __len__(self) -> int:
        return len(self._all)

    def of(self, listener: Listener | None) -> tuple[Share[M], ...]:
        """Return the shares in which a member counts that a listener subscribes to.

        Args:
            listener: The listener; `None` is the application.
        """
        if listener is None:
            return (self._all,)
        claim = listener.claim
        session = None if claim is None or not claim.session.id else claim.session
        owner = listener if session is None else session
        share = self._own.get(owner)
        if share is None:
            share = self._own[owner] = Share(self._one, self._clock)
        if session is not None and session.user is not None:
            return share, self._all
        return share, self._strangers, self._all

    def touch(self, name: str) -> None:
        """Reset a member's idle time."""
        self._strangers.touch(name)
        self._all.touch(name)
