"""Session and ClientProcess: a browser, and one of its tabs.

Owns the closing of a client process, with its channels. Must not know requests, cookies or
transports, nor when a process without a connection is closed.
"""

from __future__ import annotations

import secrets
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import anyio

from asgi_comet._runtime.timers import Timeout
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.feed import Listener, Wake
from asgi_comet.channels.scope import Owner, Tab
from asgi_comet.errors import ProcessClosed
from asgi_comet.identity.household import Household
from asgi_comet.identity.inactivity import Watch
from asgi_comet.identity.registered import Registered

__all__ = [
    "Claim",
    "Client",
    "ClientProcess",
    "Session",
    "Stale",
    "client_of",
]

Callback = Callable[["ClientProcess"], object]

_readers = count(1)


class Session:
    """One browser: one cookie jar.

    Attributes:
        id: 144 random bits, made by the server; another id after a login or logout.
        user: The user that the application named; `None` for a visitor.
    """

    __slots__ = ("__weakref__", "_connections", "_default", "_list", "_processes", "id", "user")

    def __init__(self, id_: str, user: Any = None) -> None:
        self.id: str = id_
        self.user: Any = user
        self._connections: set[Listener] = set()  # those to the site's endpoints
        self._processes: dict[str, Client] = {}  # in this worker
        self._default: Client | None = None
        self._list: Callable[[Session], list[Client]] | None = None  # of all workers

    def __repr__(self) -> str:
        return f"<Session {self.id[:6]}… processes={len(self._processes)}>"

    @property
    def processes(self) -> list[ClientProcess]:
        """The open client processes of the session, the oldest first.

        With a broker that several workers share, as of the time when this worker last asked for the
        session: for a request of the session, unless this worker had a connection of it.
        """
        return [*(self._clients if self._list is None else self._list(self))]

    @property
    def _clients(self) -> list[Client]:
        return list(self._processes.values())

    @property
    def _has_tabs(self) -> bool:
        """Whether the session has an open client process besides the default one."""
        return any(process is not self._default for process in self.processes)


@dataclass(frozen=True, slots=True)
class Claim:
    """A session, and the id by which a request named it.

    Attributes:
        session: The session.
        id: The id that the cookie named.
    """

    session: Session
    id: str

    @classmethod
    def of(cls, session: Session) -> Claim:
        """Return a claim to a session by its present id."""
        return cls(session, session.id)

    @property
    def stale(self) -> bool:
        """Whether the session has another id by now, because of a login or a logout.

        A stale claim gives no right: an attacker may have planted or stolen the old cookie.
        """
        return self.session.id != self.id


class Stale(Exception):
    """A claim is stale, so it gives no right to its session."""


class ClientProcess(Owner):
    """One running page: a tab. Thread-safe unless a method says otherwise.

    Attributes:
        id: 144 random bits.
        session: The session of the browser.
        closed: Whether the client process has closed.
    """

    __slots__ = ("_callbacks", "_closed", "_household", "closed", "id", "session")

    id: str
    session: Session
    closed: bool
    _household: Household[Client]
    _callbacks: list[Callback]
    _closed: anyio.Event | None

    def __repr__(self) -> str:
        return f"<ClientProcess {self.id[:6]}… {'closed' if self.closed else 'open'}>"

    @property
    def url(self) -> str:
        """The URL of the endpoints: `PREFIX/p/TOKEN`; in a request, below the `root_path`."""
        return self._make_url()

    @property
    def user(self) -> Any:
        """The user of the session; `None` for a visitor."""
        return self.session.user

    def on_close(self, callback: Callback) -> None:
        """Call a function when the client process closes; at once if it has closed.

        With a broker that several workers share, the function is called in this worker, and not if
        this worker stops first; see `comet.on_process_close`.

        Args:
            callback: Called with the client process, sync or async; its exceptions are logged. The
                callback has 10 s. When the server stops, the channels of the site exist for 2 s
                more.
        """
        with self._household.lock:
            self._callbacks.append(callback)
        if self.closed:
            self._call_back()
        else:
            client_of(self).hold()

    def close(self) -> None:
        """Close the process: end its channels, close its sources, run its callbacks. Idempotent."""
        self._close(tell=True)

    async def wait_closed(self) -> None:
        """Return once the client process has closed. In the lifespan's event loop."""
        if not self.closed:
            client_of(self).hold()
            if self._closed is None:
                self._closed = anyio.Event()
            await self._closed.wait()

    async def refresh(self) -> None:
        """Bring `closed`, `user` and `session` up to date, with a broker that workers share.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
        """
        await self._household.ask(client_of(self))

    @abstractmethod
    def _close(self, *, tell: bool) -> None:
        """Close the process."""

    @abstractmethod
    def _make_url(self) -> str:
        """Return the URL of the endpoints."""

    @abstractmethod
    def _end(self) -> None:
        """End the channels and connections; called once."""

    def _call_back(self) -> None:
        with self._household.lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._household.goodbyes.start(partial(callback, self))


class Client(ClientProcess, Tab):
    """A client process as the package uses it: every `ClientProcess` is one.

    With a broker that several workers share, this is the copy of this worker.

    Attributes:
        birth: The worker that opened the process, and the time. Signed together with `id`, this is
            the token in `url`.
        place: The place of the process channels.
    """

    __slots__ = (
        "__weakref__",
        "_idle_since",
        "_watch",
        "birth",
        "connections",
        "expiry",
        "held",
        "listeners",
        "locals",
        "number",
        "opened",
        "place",
        "reader",
        "registered",
    )

    def __init__(
        self,
        session: Session,
        household: Household[Client],
        lock: threading.Lock,
        id_: str | None = None,
    ) -> None:
        self.id: str = secrets.token_urlsafe(18) if id_ is None else id_
        self.session: Session = session
        self.closed: bool = False
        self.birth: str = household.birth()
        self.place: Place = Place(Directory(lock, self.id), "~", self._make_url, self)
        self.connections: int = 0  # to its endpoints, open now
        self.listeners: set[Listener] = set()  # the connections that are held
        self.reader: Listener | None = None  # the connection that reads the process channels
        self.number: int = 0  # its number among all workers; 0 if they have not been told
        self.registered: Registered | None = None  # if the client speaks the registration protocol
        self.locals: object | None = None  # the values of `ProcessLocal`
        self._household = household
        self._callbacks = []
        self._closed = None
        self.opened: float = household.runtime.clock.now()
        self._idle_since = self.opened
        self._watch: Watch | None = None  # the waits of `wait_inactive`
        self.held: bool = False  # whether other workers know that this one keeps state of it
        self.expiry: Timeout = household.presence.make_timer(self)  # while without a connection
        household.runtime.loop.run(self.begin_expiry)

    def check_open(self) -> None:
        """Raise if the client process has closed.

        Raises:
            ProcessClosed: The client process has closed.
        """
        if self.closed:
            raise ProcessClosed(self.id)

    async def wait_inactive(self, seconds: float) -> None:
        """Return once the process has been inactive for that many seconds, or has closed.

        Raises:
            ValueError: `seconds` is negative or not finite.

        Source: `Eliom_comet.Channel.wait_timeout`. In the lifespan's event loop.
        """
        if self._watch is None:
            runtime, ask = self._household.runtime, self._household.ask
            self._watch = Watch(self, runtime, lambda: ask(self))
        await self._watch.wait(seconds)

    def end(self) -> None:
        """Close the process in this worker: the store has closed it."""
        self._close(tell=False)

    def begin_expiry(self) -> None:
        """Start the time limit for the first connection. In the loop's thread."""
        self._household.presence.begin(self)

    def connect(self) -> None:
        """Register a connection to the endpoints. In the loop's thread."""
        self.connections += 1
        if self.connections == 1:
            self._household.presence.connected(self)

    def disconnect(self) -> None:
        """Remove a connection to the endpoints that has closed. In the loop's thread."""
        self.connections -= 1
        if self.connections == 0:
            self._idle_since = self._household.runtime.clock.now()
            self._household.presence.idle(self)

    def inactive_for(self) -> float:
        """Return how many seconds ago the last connection closed; 0 while there is a connection."""
        return 0.0 if self.connections else self._household.runtime.clock.now() - self._idle_since

    def read_by(self, listener: Listener) -> int:
        """Let a newer connection read the process channels; wake the older one.

        Returns:
            The number of the older one, if other workers know of it; else 0.
        """
        former, number = self.reader, self.number
        if former is listener:
            return 0
        if former is not None:
            former.wake(Wake.REPLACED)
        self._end_reading()
        self.reader = listener
        return number

    def number_reader(self) -> int:
        """Return the number of the connection that reads, by which other workers know it."""
        if self.number == 0:
            self.number = next(_readers)
        return self.number

    def left_by(self, listener: Listener) -> int:
        """Record that a connection no longer reads the process channels.

        Returns:
            Its number, if other workers know of it; else 0.
        """
        if self.reader is not listener:
            return 0
        number, self.reader = self.number, None
        self._end_reading()
        return number

    def _end_reading(self) -> None:
        """Record that messages of other workers may not come here any more."""
        if self.number:
            self.number = 0
            for feed in self.place.directory.feeds():
                feed.live = False

    def replaced(self, number: int) -> None:
        """Record that a connection to another worker reads in place of the one of that number."""
        reader = self.reader
        if reader is not None and self.number == number:
            self.left_by(reader)
            reader.wake(Wake.REPLACED)

    @property
    def in_use(self) -> bool:
        """Whether this worker has connections of the process, or state that must not be lost."""
        kept = self.connections or self._callbacks or self._watch or self.locals is not None
        return bool(kept or self.reader or self._closed is not None) or any(
            feed.stop is not None or feed.listeners for feed in self.place.directory.feeds()
        )

    def _close(self, *, tell: bool) -> None:
        with self._household.lock:
            first, self.closed = not self.closed, True
        if first:
            if tell:
                self._household.tell(self)
            self._end()
            self._call_back()

    def hold(self) -> None:
        """Record that this worker keeps state of the process. Thread-safe; idempotent."""
        self._household.presence.hold(self)

    def _make_url(self) -> str:
        return self._household.url(self)

    def _end(self) -> None:
        # Connections first: a client is told of the closing, not of the end of each channel.
        self._household.runtime.loop.run(self._end_connections)
        self._household.close(self)
        self.locals = None

    def _end_connections(self) -> None:
        self._household.presence.end(self)
        for listener in list(self.listeners):
            listener.wake(Wake.CLOSED)
        if self._closed is not None:
            self._closed.set()
        if self._watch is not None:
            self._watch.wake()


def client_of(process: object) -> Client:
    """Return a client process from the application, as the package uses it.

    Raises:
        TypeError: The object is not a client process.
    """
    if not isinstance(process, Client):
        raise TypeError(f"expected a client process, got {type(process).__name__}")
    return process
