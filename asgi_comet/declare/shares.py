"""How many members of families live: in all, for one client, and for all strangers together.

Owns which of them have no listener, and which of these goes when there is no room for another one.
Must not know how a member is ended. Not thread-safe: the declarations hold their lock.

A client names the members, and each costs a task of ours: without a share of its own one client
could start as many as there may be in all. Besides, Python's garbage collector looks at all that
they are made of, and stops the event loop meanwhile: 0.1 ms for each member.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from asgi_comet._runtime.clock import Clock
from asgi_comet.errors import TooManyFamilyChannels

if TYPE_CHECKING:
    from asgi_comet.channels.feed import Feed, Listener

__all__ = ["Bounds", "Share", "Shares"]

SCAN = 16  # members that are looked at for one that was not used of late

GRACE = 1.0  # seconds that a member has for somebody to come, however many there are in all


class Used(Protocol):
    """What is counted: it knows its feed."""

    @property
    def feed(self) -> Feed:
        """The feed, which knows when the application used it."""
        ...


M = TypeVar("M", bound=Used)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one share may have.

    Attributes:
        setting: The setting that says how many, for the error.
        limit: How many members count at most.
        listeners: With how many listeners a member still counts; `None` means with any number.
        grace: For how many seconds a member without a listener is not ended for another one.
    """

    setting: str
    limit: int
    listeners: int | None = None
    grace: float = 0.0


class Share(Generic[M]):
    """Some members of families, and those of them without a listener, the longest first.

    Args:
        bounds: What it may have.
        clock: What time it is.
    """

    __slots__ = ("_bounds", "_clock", "_idle", "_names")

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._names: set[str] = set()
        self._idle: dict[str, tuple[M, float]] = {}  # and since when

    def __len__(self) -> int:
        return len(self._names)

    def note(self, name: str, member: M, listeners: int) -> None:
        """A member has that many listeners from now on."""
        most = self._bounds.listeners
        if most is None or listeners <= most:
            self._names.add(name)
        else:  # others keep it alive
            self._names.discard(name)
        if listeners:
            self._idle.pop(name, None)
        elif name not in self._idle:
            self._idle[name] = member, self._clock.now()

    def touch(self, name: str) -> None:
        """A member was asked for: if it has no listener, that counts as if it began now."""
        found = self._idle.pop(name, None)
        if found is not None:
            self._idle[name] = found[0], self._clock.now()

    def leave(self, name: str) -> None:
        """A member has ended."""
        self._names.discard(name)
        self._idle.pop(name, None)

    def make_room(self) -> M | None:
        """Remove and return the member to close before a new one starts; `None` if there is room.

        Raises:
            TooManyFamilyChannels: The limit is reached, and every member is in use.
        """
        if len(self._names) < self._bounds.limit:
            return None
        self._sort_in()
        for name, (member, since) in self._idle.items():
            if self._clock.now() - since < self._bounds.grace:
                break
            del self._idle[name]
            return member
        raise TooManyFamilyChannels(self._bounds.limit, self._bounds.setting)

    def _sort_in(self) -> None:
        """Move the first members behind the others that the application has used since."""
        for name, (member, since) in list(islice(self._idle.items(), SCAN)):
            used = member.feed.used_at
            if used > since:
                del self._idle[name]
                self._idle[name] = member, used


class Shares(Generic[M]):
    """The share of each client, that of strangers, and that of all.

    Args:
        most: How many members there may be.
        most_of_one: How many of them may be there for one client alone.
        clock: What time it is.
    """

    def __init__(self, most: int, most_of_one: int, clock: Clock) -> None:
        self._clock = clock
        setting = "max_family_channels_per_session"
        self._own: WeakKeyDictionary[object, Share[M]] = WeakKeyDictionary()
        self._one = Bounds(setting, most_of_one, listeners=1)
        self._all: Share[M] = Share(Bounds("max_family_channels", most, grace=GRACE), clock)
        # Members without listeners expire soon, so a visitor's new member is never refused: the
        # oldest one is closed.
        self._strangers: Share[M] = Share(Bounds(setting, most_of_one, listeners=0), clock)

    def __len__(self) -> int:
        return len(self._all)

    def of(self, listener: Listener | None) -> tuple[Share[M], ...]:
        """Return the shares that a member counts in which a listener asks for.

        Args:
            listener: Who asks; `None` is the application.
        """
        if listener is None:
            return (self._all,)
        caller = listener.caller
        session = None if caller is None or not caller.session.id else caller.session
        owner = listener if session is None else session
        share = self._own.get(owner)
        if share is None:
            share = self._own[owner] = Share(self._one, self._clock)
        if session is not None and session.user is not None:
            return share, self._all
        return share, self._strangers, self._all

    def touch(self, name: str) -> None:
        """A member was asked for."""
        self._strangers.touch(name)
        self._all.touch(name)
