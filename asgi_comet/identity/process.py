"""Session and ClientProcess: a browser, and one of its tabs.

Owns inactivity: a process that nobody connects to is closed, and with it all it had. Must not know
requests, cookies or transports.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import RESOLUTION, Timer
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.feed import Feed, Listener, Wake
from asgi_comet.channels.scope import Owner
from asgi_comet.errors import ProcessClosed
from asgi_comet.identity.goodbyes import Goodbyes

__all__ = ["ClientProcess", "Household", "Registered", "Session"]

FIRST_CONNECTION = 30.0  # seconds a new process may wait for its first connection, at most

Callback = Callable[["ClientProcess"], object]


class Session:
    """One browser: one cookie jar.

    Attributes:
        id: 144 random bits, made here; another one after a login or logout.
        user: Who the application says it belongs to; `None` for a visitor.
        visitors: Its connections to the site's endpoints.
    """

    __slots__ = ("__weakref__", "_default", "_processes", "id", "user", "visitors")

    def __init__(self, id_: str, user: Any = None) -> None:
        self.id: str = id_
        self.user: Any = user
        self.visitors: set[Listener] = set()
        self._processes: dict[str, ClientProcess] = {}
        self._default: ClientProcess | None = None

    def __repr__(self) -> str:
        return f"<Session {self.id[:6]}… processes={len(self._processes)}>"

    @property
    def processes(self) -> list[ClientProcess]:
        """Its open client processes, the oldest first."""
        return list(self._processes.values())

    @property
    def has_tabs(self) -> bool:
        """Whether it has an open client process besides the default one."""
        return any(process is not self._default for process in self._processes.values())


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose a request or connection is, as its cookie said when it was looked at.

    Attributes:
        session: The session.
        id: The id that it had.
    """

    session: Session
    id: str

    @classmethod
    def of(cls, session: Session) -> Caller:
        """Return whose it is as of now."""
        return cls(session, session.id)

    @property
    def moved(self) -> bool:
        """Whether somebody logged in or out since: then what it knew is worth nothing."""
        return self.session.id != self.id


class Registered:
    """What a client process that speaks the registration protocol has, kept by the server.

    Attributes:
        cursors: For each feed the last offset the client has for certain.
        expected: The channels it asked for that did not exist yet.
        number: The number of its last request; `None` if it had none.
        lost: Names of channels that ended while it asked for others, to be told once.
        answer: The last answer, to be repeated if the same number comes again: of each channel the
            offsets after which and up to which it went, or as it was written, if it is no message.
        pending: The offsets that this answer reaches to; the client has them once it comes back.
        charge: How many bytes it was last reckoned to take.
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
    """What all client processes share.

    Attributes:
        runtime: Where inactivity is seen, and callbacks run.
        timeout: Seconds of inactivity after which a process is closed.
        url: Tells the URL of a process' endpoints, as the current request sees it.
        birth: Tells which worker this is, and what time it is.
        close: Ends all that a process had, and forgets it.
        goodbyes: Where the callbacks of closed processes run.
        lock: Guards the closing of a process.
    """

    runtime: Runtime
    timeout: float
    url: Callable[[ClientProcess], str]
    birth: Callable[[], str]
    close: Callable[[ClientProcess], None]
    goodbyes: Goodbyes
    lock: threading.Lock = field(default_factory=threading.Lock)


class ClientProcess(Owner):
    """One running page: a tab. Thread-safe where nothing else is said.

    Attributes:
        id: 144 random bits. Signed together with `birth` it is the token in `url`.
        birth: Which worker opened it, and when.
        session: The browser it belongs to.
        place: Where its channels live.
        closed: Whether it has closed.
    """

    __slots__ = (
        "_callbacks",
        "_closed",
        "_expiry",
        "_household",
        "_idle_since",
        "_waiting",
        "birth",
        "closed",
        "connections",
        "id",
        "listeners",
        "locals",
        "place",
        "reader",
        "registered",
        "session",
    )

    def __init__(self, session: Session, household: Household, lock: threading.Lock) -> None:
        self.id: str = secrets.token_urlsafe(18)
        self.birth: str = household.birth()
        self.session: Session = session
        self.place: Place = Place(Directory(lock, self.id), "~", self._make_url, self)
        self.closed: bool = False
        self.connections: int = 0  # open to its endpoints right now
        self.listeners: set[Listener] = set()  # those of them that are held
        self.reader: Listener | None = None  # the one connection that reads its own channels
        self.registered: Registered | None = None  # if it speaks the registration protocol
        self.locals: object | None = None  # what `ProcessLocal` keeps of it
        self._household = household
        self._idle_since = household.runtime.clock.now()
        self._callbacks: list[Callback] = []
        self._closed: anyio.Event | None = None
        self._waiting: set[_Inactivity] = set()
        self._expiry = _Expiry(self)
        household.runtime.loop.run(self.begin_expiry)

    def __repr__(self) -> str:
        return f"<ClientProcess {self.id[:6]}… {'closed' if self.closed else 'open'}>"

    @property
    def url(self) -> str:
        """Where its endpoints are: `PREFIX/p/TOKEN`; in a request with the `root_path`."""
        return self._make_url()

    @property
    def user(self) -> Any:
        """Who its session belongs to."""
        return self.session.user

    def on_close(self, callback: Callback) -> None:
        """Have a function called when the process closes; at once if it has.

        Args:
            callback: Called with the process, sync or async; what it raises is logged. It has 10 s.
                When the server stops it has 2 s in which the channels of the site are still there.
        """
        with self._household.lock:
            self._callbacks.append(callback)
        if self.closed:
            self._call_back()

    def check_open(self) -> None:
        """Raise if it has closed.

        Raises:
            ProcessClosed: It has.
        """
        if self.closed:
            raise ProcessClosed(self.id)

    def close(self) -> None:
        """Close it: its channels end, its sources are closed, its callbacks run. Idempotent."""
        with self._household.lock:
            first, self.closed = not self.closed, True
        if first:
            # Its connections first: they are to hear of this, not of each channel's end.
            self._household.runtime.loop.run(self._close)
            self._household.close(self)
            self.locals = None
            self._call_back()

    async def wait_closed(self) -> None:
        """Return once it has closed. In the lifespan's event loop."""
        if not self.closed:
            if self._closed is None:
                self._closed = anyio.Event()
            await self._closed.wait()

    async def wait_inactive(self, seconds: float) -> None:
        """Return once it has been inactive for that many seconds, or has closed.

        Raises:
            ValueError: `seconds` is negative or not finite.

        Source: `Eliom_comet.Channel.wait_timeout`. In the lifespan's event loop.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"expected a number of seconds, at least 0, got {seconds!r}")
        self._household.runtime.loop.check()
        inactivity = _Inactivity(self, seconds)
        self._waiting.add(inactivity)
        try:
            inactivity.begin()
            await inactivity.over.wait()
        finally:
            self._household.runtime.timers.stop(inactivity)
            self._waiting.discard(inactivity)

    def begin_expiry(self) -> None:
        """Count from now until its first connection. In the loop's thread."""
        self._expiry.begin(min(FIRST_CONNECTION, self._household.timeout))

    def connect(self) -> None:
        """A connection to its endpoints opens. In the loop's thread."""
        self.connections += 1
        if self.connections == 1:
            self._household.runtime.timers.stop(self._expiry)

    def disconnect(self) -> None:
        """A connection to its endpoints has closed. In the loop's thread."""
        self.connections -= 1
        if self.connections == 0:
            self._idle_since = self._household.runtime.clock.now()
            if not self.closed:
                self._expiry.begin(self._household.timeout)

    def inactive_for(self) -> float:
        """Return for how many seconds nobody has been connected; 0 while somebody is."""
        return 0.0 if self.connections else self._household.runtime.clock.now() - self._idle_since

    def read_by(self, listener: Listener) -> None:
        """Let a newer connection read its own channels; an older one is told."""
        if self.reader is not None and self.reader is not listener:
            self.reader.wake(Wake.REPLACED)
        self.reader = listener

    def left_by(self, listener: Listener) -> None:
        """A connection reads its own channels no more."""
        if self.reader is listener:
            self.reader = None

    def _make_url(self) -> str:
        return self._household.url(self)

    def _close(self) -> None:
        self._household.runtime.timers.stop(self._expiry)
        for listener in list(self.listeners):
            listener.wake(Wake.CLOSED)
        if self._closed is not None:
            self._closed.set()
        for inactivity in self._waiting:
            inactivity.over.set()

    def _call_back(self) -> None:
        with self._household.lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._household.goodbyes.start(partial(callback, self))


class _Expiry(Timer):
    """Closes a process that nobody connects to."""

    __slots__ = ("_process",)

    def __init__(self, process: ClientProcess) -> None:
        super().__init__()
        self._process = process

    def begin(self, seconds: float) -> None:
        if not self._process.closed and not self._process.connections:
            self._process._household.runtime.timers.start(self, seconds)

    def expire(self) -> None:
        self._process.close()


class _Inactivity(Timer):
    """Somebody waits for a process to have been inactive for a while."""

    __slots__ = ("_process", "_seconds", "over")

    def __init__(self, process: ClientProcess, seconds: float) -> None:
        super().__init__()
        self._process = process
        self._seconds = seconds
        self.over = anyio.Event()

    def begin(self) -> None:
        process = self._process
        left = self._seconds - process.inactive_for()
        if process.closed or (left <= 0 and not process.connections):
            self.over.set()
        else:
            process._household.runtime.timers.start(self, max(left, RESOLUTION))

    def expire(self) -> None:
        self.begin()

    def hasten(self) -> None:
        self.over.set()  # the process is about to close
