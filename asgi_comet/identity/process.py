"""Session and ClientProcess: a browser, and one of its tabs.

Owns inactivity: a client process without a connection is closed after a time, with its channels.
Must not know requests, cookies or transports.
"""

from __future__ import annotations

import math
import secrets
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import RESOLUTION, Timeout
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.feed import Feed, Listener, Wake
from asgi_comet.channels.scope import Owner, Tab
from asgi_comet.errors import ProcessClosed
from asgi_comet.identity.goodbyes import Goodbyes

__all__ = [
    "Claim",
    "Client",
    "ClientProcess",
    "Household",
    "Registered",
    "Session",
    "Stale",
    "client_of",
]

FIRST_CONNECTION = 30.0  # seconds a new process may wait for its first connection, at most

Callback = Callable[["ClientProcess"], object]


class Session:
    """One browser: one cookie jar.

    Attributes:
        id: 144 random bits, made by the server; another id after a login or logout.
        user: The user that the application named; `None` for a visitor.
    """

    __slots__ = ("__weakref__", "_connections", "_default", "_processes", "id", "user")

    def __init__(self, id_: str, user: Any = None) -> None:
        self.id: str = id_
        self.user: Any = user
        self._connections: set[Listener] = set()  # those to the site's endpoints
        self._processes: dict[str, Client] = {}
        self._default: Client | None = None

    def __repr__(self) -> str:
        return f"<Session {self.id[:6]}… processes={len(self._processes)}>"

    @property
    def processes(self) -> list[ClientProcess]:
        """The open client processes of the session, the oldest first."""
        return list(self._processes.values())

    @property
    def _clients(self) -> list[Client]:
        return list(self._processes.values())

    @property
    def _has_tabs(self) -> bool:
        """Whether the session has an open client process besides the default one."""
        return any(process is not self._default for process in self._processes.values())


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


class Registered:
    """The state of a client process that speaks the registration protocol.

    Attributes:
        cursors: For each feed, the last offset that the client has acknowledged.
        expected: Names of channels that the client asked for and that do not exist yet.
        number: The number of the last request; `None` if the request had no number.
        lost: Names of channels that ended while the client asked for others; the server tells each
            of them once.
        answer: The last answer, which the server repeats if the same number comes again. For the
            messages of a channel: the feed, and the offsets after which and up to which they were
            sent; for everything else: the bytes.
        pending: The last offsets of this answer; the client acknowledges them by its next request.
        charge: How many bytes the state takes, according to the last estimate.
    """

    __slots__ = ("answer", "charge", "cursors", "expected", "lost", "number", "pending")

    def __init__(self) -> None:
        self.cursors: dict[Feed, int] = {}
        self.expected: set[str] = set()
        self.lost: dict[str, None] = {}
        self.number: str | None = None
        self.answer: list[tuple[Feed, int, int] | bytes] | None = None
        self.charge: int = 0
        self.pending: dict[Feed, int] = {}


@dataclass(frozen=True, slots=True)
class Household:
    """The parts that all client processes share.

    Attributes:
        runtime: Runs the timers of inactivity.
        timeout: Seconds of inactivity after which a process is closed.
        url: Returns the URL of a process' endpoints, as seen by the current request.
        birth: Returns the worker and the current time, as a text.
        close: Ends the channels of a process, and forgets the process.
        goodbyes: Runs the callbacks of closed processes.
        lock: Guards the closing of a process.
    """

    runtime: Runtime
    timeout: float
    url: Callable[[Client], str]
    birth: Callable[[], str]
    close: Callable[[Client], None]
    goodbyes: Goodbyes
    lock: threading.Lock = field(default_factory=threading.Lock)


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
    _household: Household
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

        Args:
            callback: Called with the client process, sync or async; its exceptions are logged. The
                callback has 10 s. When the server stops, the channels of the site exist for 2 s
                more.
        """
        with self._household.lock:
            self._callbacks.append(callback)
        if self.closed:
            self._call_back()

    def close(self) -> None:
        """Close the process: end its channels, close its sources, run its callbacks. Idempotent."""
        with self._household.lock:
            first, self.closed = not self.closed, True
        if first:
            self._end()
            self._call_back()

    async def wait_closed(self) -> None:
        """Return once the client process has closed. In the lifespan's event loop."""
        if not self.closed:
            if self._closed is None:
                self._closed = anyio.Event()
            await self._closed.wait()

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

    Attributes:
        birth: The worker that opened the process, and the time. Signed together with `id`, this is
            the token in `url`.
        place: The place of the process channels.
    """

    __slots__ = (
        "_expiry",
        "_idle_since",
        "_waiting",
        "birth",
        "connections",
        "listeners",
        "locals",
        "place",
        "reader",
        "registered",
    )

    def __init__(self, session: Session, household: Household, lock: threading.Lock) -> None:
        self.id: str = secrets.token_urlsafe(18)
        self.session: Session = session
        self.closed: bool = False
        self.birth: str = household.birth()
        self.place: Place = Place(Directory(lock, self.id), "~", self._make_url, self)
        self.connections: int = 0  # to its endpoints, open now
        self.listeners: set[Listener] = set()  # the connections that are held
        self.reader: Listener | None = None  # the connection that reads the process channels
        self.registered: Registered | None = None  # if the client speaks the registration protocol
        self.locals: object | None = None  # the values of `ProcessLocal`
        self._household = household
        self._callbacks = []
        self._closed = None
        self._idle_since = household.runtime.clock.now()
        self._waiting: set[anyio.Event] = set()  # each wakes one `wait_inactive`
        self._expiry = Timeout(self.close)
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
        if not 0 <= seconds < math.inf:
            raise ValueError(f"expected a number of seconds, at least 0, got {seconds!r}")
        self._household.runtime.loop.check()
        timers = self._household.runtime.timers
        while not (self.closed or timers.stopping or self._is_inactive(seconds)):
            look = anyio.Event()
            self._waiting.add(look)
            try:
                left = max(seconds - self.inactive_for(), RESOLUTION)
                await timers.wait(look, left, until_shutdown=True)
            finally:
                self._waiting.discard(look)

    def begin_expiry(self) -> None:
        """Start the time limit for the first connection. In the loop's thread."""
        self._expire_in(min(FIRST_CONNECTION, self._household.timeout))

    def connect(self) -> None:
        """Register a connection to the endpoints. In the loop's thread."""
        self.connections += 1
        if self.connections == 1:
            self._household.runtime.timers.stop(self._expiry)

    def disconnect(self) -> None:
        """Remove a connection to the endpoints that has closed. In the loop's thread."""
        self.connections -= 1
        if self.connections == 0:
            self._idle_since = self._household.runtime.clock.now()
            self._expire_in(self._household.timeout)

    def inactive_for(self) -> float:
        """Return how many seconds ago the last connection closed; 0 while there is a connection."""
        return 0.0 if self.connections else self._household.runtime.clock.now() - self._idle_since

    def read_by(self, listener: Listener) -> None:
        """Let a newer connection read the process channels; wake the older one."""
        if self.reader is not None and self.reader is not listener:
            self.reader.wake(Wake.REPLACED)
        self.reader = listener

    def left_by(self, listener: Listener) -> None:
        """Record that a connection no longer reads the process channels."""
        if self.reader is listener:
            self.reader = None

    def _is_inactive(self, seconds: float) -> bool:
        return not self.connections and self.inactive_for() >= seconds

    def _expire_in(self, seconds: float) -> None:
        if not self.closed and not self.connections:
            self._household.runtime.timers.start(self._expiry, seconds)

    def _make_url(self) -> str:
        return self._household.url(self)

    def _end(self) -> None:
        # Connections first: a client is told of the closing, not of the end of each channel.
        self._household.runtime.loop.run(self._end_connections)
        self._household.close(self)
        self.locals = None

    def _end_connections(self) -> None:
        self._household.runtime.timers.stop(self._expiry)
        for listener in list(self.listeners):
            listener.wake(Wake.CLOSED)
        if self._closed is not None:
            self._closed.set()
        for look in self._waiting:
            look.set()


def client_of(process: object) -> Client:
    """Return a client process from the application, as the package uses it.

    Raises:
        TypeError: The object is not a client process.
    """
    if not isinstance(process, Client):
        raise TypeError(f"expected a client process, got {type(process).__name__}")
    return process
