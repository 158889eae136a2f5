"""The interface of brokers for sessions and client processes, which any worker serves.

The store decides; a worker has copies. A worker asks for the state of what a request names, and is
told of later changes: of each session that gets another id, and of each client process that the
worker has entered or keeps, until `leave` and `drop`.

Ids and users are texts here. The first two characters of an id are the same for a session, for the
ids that follow it, and for its client processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from asgi_comet.brokers.audience import Audience, Progress
from asgi_comet.brokers.logs import ChannelSpec, Closed, Full, Log, Placed, Unknown
from asgi_comet.core.messages import Start
from asgi_comet.errors import CometError
from asgi_comet.position import Position

__all__ = ["Arrival", "Found", "Limits", "Moved", "People", "PeopleHost", "SessionState", "Visited"]


class Moved(CometError):
    """A session has another id by now, or a client process is of another session.

    Attributes:
        session: The other id.
    """

    def __init__(self, session: str) -> None:
        super().__init__("the session has another id by now")
        self.session = session


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of client processes; see `Settings`.

    Attributes:
        timeout: How many seconds a client process may be without a connection.
        of_session: How many client processes a session may have.
        processes: How many client processes there may be in all workers together.
    """

    timeout: float = 600.0
    of_session: int = 32
    processes: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """The state of a session in the store.

    Attributes:
        id: The present id.
        user: The user as JSON; `None` for a visitor.
        default: The default client process; `""` if there is none.
        defaults: How many default client processes the session has had.
        kept: Whether the session is remembered without a client process.
        processes: The open client processes, the oldest first.
        followed: For the store itself: the id that a login or a logout has given to the session
            that had this id before; `""` if there was none, or if the store need not know.
    """

    id: str
    user: str | None = None
    default: str = ""
    defaults: int = 0
    kept: bool = False
    processes: tuple[str, ...] = ()
    followed: str = ""


@dataclass(frozen=True, slots=True)
class Visited:
    """The state of the sessions and of the client process that a request names.

    Attributes:
        sessions: The sessions in the order of the question. A session that lately got another id is
            given by its present id; a session that the store does not know is empty.
        owner: The present id of the session of the client process; `""` if there is no open one.
    """

    sessions: tuple[SessionState, ...]
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One own channel, as `People.claim` found it.

    Attributes:
        window: The window, which has all messages from the start on; `None` without a channel.
        start: Where the reader begins. `Closed` also if there was a channel of that name, which the
            store has forgotten; `Unknown` if there never was one.
        progress: How far the client has read; `None` if this worker knows.
    """

    window: Log | None
    start: Placed | Full | Closed | Unknown
    progress: Progress | None = None


class PeopleHost(ABC):
    """The functions that a broker may call, in the thread of the loop that runs `Broker.run`."""

    @abstractmethod
    def closed(self, process: str) -> None:
        """Report that a client process has closed. Its callbacks and channels of this worker end.

        Idempotent; called also if this worker does not know the process.
        """

    @abstractmethod
    def moved(self, session: str, new: str, user: str | None) -> None:
        """Report that a session has another id; its connections in this worker end.

        Idempotent; called also if this worker does not know the session.

        Args:
            session: The former id.
            new: The present id.
            user: The user as JSON from now on; `None` for a visitor.
        """

    @abstractmethod
    def replaced(self, process: str, reader: int) -> None:
        """Report that another connection reads the own channels of a client process.

        Args:
            process: The client process.
            reader: The reader of this worker that reads no longer; see `People.claim`.
        """

    @abstractmethod
    def window(self, spec: ChannelSpec) -> Log | None:
        """Return the window on an own channel, made if this worker has none.

        Listeners that wait for a channel of that name are joined to it.

        Args:
            spec: The channel; `owner` is the client process.

        Returns:
            The window; `None` if this worker does not know the client process any more.
        """

    @abstractmethod
    def ending(self, process: str, done: Callable[[], None]) -> None:
        """Run the functions of the application that run once for each closed client process.

        Called in one worker for each client process that closes; again in another worker if this
        one ends before it calls `done`.

        Args:
            process: The client process, which need not be known here.
            done: Called in the loop's thread when the functions have run.
        """

    @abstractmethod
    def told(self, event: str) -> None:
        """Take an event that a worker, maybe this one, has sent to all; see `People.tell_all`."""

    @abstractmethod
    def missed(self) -> None:
        """Report that changes have passed of which this worker will not hear: no right is sure."""


class Arrival(Protocol):
    """The arrival of a connection, which may be over before anything is done for it."""

    @property
    def came(self) -> float:
        """The time by the machine's monotonic clock, in seconds."""

    async def confirm(self) -> None:
        """Raise an error if the client has disconnected already, as far as the server knows."""


class People(ABC):
    """Sessions and client processes that workers share.

    All coroutines raise `BrokerUnavailable` if the store cannot be reached. The functions that are
    no coroutines never wait; the broker repeats what they report on each new connection.
    """

    @property
    @abstractmethod
    def current(self) -> bool:
        """Whether this worker has surely been told of every change until a moment ago.

        If not, it neither uses its copies nor delivers anything that needs a right.
        """

    @abstractmethod
    async def visit(self, sessions: Sequence[str], process: str = "") -> Visited:
        """Return the state of sessions, and of a client process that may be of any session.

        Args:
            sessions: The ids, as cookies name them.
            process: The id of a client process; `""` for none.
        """

    @abstractmethod
    async def idle(self, process: str) -> float:
        """Return for how many seconds an open client process has had no connection in any worker.

        Returns:
            The seconds; 0 only while there is a connection.
        """

    @abstractmethod
    async def open(self, session: str, process: str, *, default: bool = False) -> str:
        """Open a client process in a session, which need not exist.

        Where the session has as many as it may, the one longest without a connection is closed.

        Args:
            session: The session.
            process: An unused id.
            default: Whether the process is to be the default one.

        Returns:
            The id; of the default client process, if there is one already and `default` is set.

        Raises:
            Moved: The session has another id by now; nothing was opened.
            TooManyProcesses: All of the session's are connected, or there are too many in all.
        """

    @abstractmethod
    async def close(self, session: str, process: str) -> None:
        """Close a client process; return once all workers are told and its channels are deleted.

        Raises:
            Moved: The process is of another session.
        """

    @abstractmethod
    async def move(self, session: str, new: str, *, user: str | None, keep: bool) -> None:
        """Give a session another id and another user: login and logout.

        The client processes of a visitor, or of the same user, are the new id's; those of another
        user close. Returns once every living worker has applied the change, or delivers nothing
        that needs a right.

        Args:
            session: The present id.
            new: An unused id.
            user: The user as JSON; `None` for a visitor.
            keep: Whether to remember the user while the session has no client process.

        Raises:
            Moved: The session has another id by now; nothing was changed.
        """

    @abstractmethod
    async def sessions(self, user: str | None) -> list[SessionState]:
        """Return the sessions that have an open client process: all, or those of a user."""

    # What this worker has of a client process

    @abstractmethod
    def enter(self, session: str, process: str) -> None:
        """Report that this worker has a connection of a client process, until `leave`.

        The process does not expire meanwhile. `PeopleHost.closed` is called if it has closed.
        """

    @abstractmethod
    def leave(self, process: str, idle: float) -> None:
        """Report that this worker has had no connection of a client process for some seconds."""

    @abstractmethod
    async def keep(self, session: str, process: str) -> None:
        """Record that this worker keeps state of a client process, until `drop`.

        Raises:
            Moved: The process is of another session.
            ProcessClosed: The process has closed.
        """

    @abstractmethod
    def drop(self, process: str) -> None:
        """Report that this worker has forgotten a client process, and all that it kept of it."""

    # Own channels: one connection in all workers reads them

    @abstractmethod
    async def claim(
        self,
        session: str,
        process: str,
        reader: int,
        starts: Mapping[str, Start],
        arrival: Arrival | None = None,
    ) -> dict[str, Found]:
        """Let a connection of this worker read own channels, in place of any that came before.

        Counts as `enter`. A position acknowledges all messages up to it, and `new.0` is as `first`
        if there is a channel. From now on the windows get all messages, until `unclaim` or
        `PeopleHost.replaced`. Names without a channel are remembered: `PeopleHost.window` is called
        when a worker, maybe this one, makes the channel.

        A connection that reads already claims further channels by the same number. If another one
        has replaced it meanwhile, nothing changes, `PeopleHost.replaced` is called, and each
        channel is `Unknown`.

        Args:
            session: The session of the connection.
            process: The client process.
            reader: A number that this worker never used for another connection.
            starts: The start positions by name; may be empty.
            arrival: When the connection came; `None` for now.

        Returns:
            The channels by name.

        Raises:
            Moved: The process is of another session.
            ProcessClosed: The process has closed.

        Also raises what `Arrival.confirm` raises; then nothing has changed.
        """

    @abstractmethod
    def unclaim(self, process: str, reader: int) -> None:
        """Report that a connection reads no more; the windows go on for a while. Idempotent."""

    @abstractmethod
    def acknowledge(self, process: str, positions: Mapping[str, Position]) -> None:
        """Record that a client process has all messages up to positions of own channels.

        For channels of which this worker has no current window; else see `Broker.acknowledge`. A
        position of another epoch or beyond the newest message is ignored. Never waits.
        """

    @abstractmethod
    async def reported(self, process: str) -> None:
        """Return once the store has what this worker has reported of a client process so far."""

    @abstractmethod
    async def load(self, process: str) -> bytes | None:
        """Return the state of the registration protocol; `None` if there is none."""

    @abstractmethod
    async def save(self, process: str, reader: int, state: bytes) -> bool:
        """Store the state of the registration protocol if a reader still reads; return whether."""

    # All workers

    @property
    @abstractmethod
    def count(self) -> int:
        """How many client processes are open in all workers, as of some seconds ago."""

    @property
    @abstractmethod
    def audience(self) -> Audience:
        """The client processes that listen on keys of notifiers."""

    @abstractmethod
    async def tell_all(self, event: str, *, lasting: str = "") -> int:
        """Have `PeopleHost.told` called in every worker, this one included.

        Args:
            event: The event.
            lasting: A name, whose newest event is told to workers that join later, too; `""` for an
                event that only concerns those that are there.

        Returns:
            How many workers have applied the event. All others deliver nothing that needs a right
            until they have applied it.
        """
