"""Presence: client processes stay open while they have a connection, and for a time after.

Owns inactivity: in one worker a timer closes the process; with a broker that several workers share,
the store does, and this worker reports its connections, and the state that it keeps. Must not know
requests, cookies or transports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Protocol
from weakref import finalize

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timeout
from asgi_comet.brokers.people import Moved, People
from asgi_comet.errors import ProcessClosed
from asgi_comet.identity.announcing import Announcer

__all__ = ["LocalPresence", "Presence", "Present", "SharedPresence"]

FIRST_CONNECTION = 30.0  # seconds a new process may wait for its first connection, at most
PAUSE = 1.0  # seconds until the others are told that there is no connection: a poll comes again


class Named(Protocol):
    """A session."""

    id: str


class Present(Protocol):
    """A client process, as its presence sees it."""

    id: str
    closed: bool
    connections: int
    expiry: Timeout
    held: bool

    @property
    def session(self) -> Named:
        """The session."""

    def close(self) -> None:
        """Close the process."""

    def end(self) -> None:
        """Close the process in this worker: the store has closed it."""

    def inactive_for(self) -> float:
        """Return how many seconds ago the last connection of this worker closed."""


class Presence(ABC):
    """Keeps client processes open. In the loop's thread, except for `hold`."""

    @abstractmethod
    def make_timer(self, process: Present) -> Timeout:
        """Return the timer that runs while there is no connection."""

    @abstractmethod
    def begin(self, process: Present) -> None:
        """Start the time limit for the first connection."""

    @abstractmethod
    def connected(self, process: Present) -> None:
        """Record the first connection of this worker."""

    @abstractmethod
    def idle(self, process: Present) -> None:
        """Record that the last connection of this worker has closed."""

    @abstractmethod
    def hold(self, process: Present) -> None:
        """Record that this worker keeps state of a process. Thread-safe; idempotent."""

    @abstractmethod
    def end(self, process: Present) -> None:
        """Forget a process that has closed."""


class LocalPresence(Presence):
    """Closes processes by timers.

    Args:
        runtime: Runs the timers.
        timeout: Seconds of inactivity after which a process is closed.
    """

    def __init__(self, runtime: Runtime, timeout: float) -> None:
        self._runtime = runtime
        self._timeout = timeout

    def make_timer(self, process: Present) -> Timeout:
        """Return a timer that closes the process."""
        return Timeout(process.close)

    def begin(self, process: Present) -> None:
        """Start the time limit for the first connection."""
        self._start(process, min(FIRST_CONNECTION, self._timeout))

    def connected(self, process: Present) -> None:
        """Stop the timer."""
        self._runtime.timers.stop(process.expiry)

    def idle(self, process: Present) -> None:
        """Start the timer."""
        self._start(process, self._timeout)

    def hold(self, process: Present) -> None:
        """Do nothing: there is no other worker."""

    def end(self, process: Present) -> None:
        """Stop the timer."""
        self._runtime.timers.stop(process.expiry)

    def _start(self, process: Present, seconds: float) -> None:
        if not process.closed and not process.connections:
            self._runtime.timers.start(process.expiry, seconds)


class SharedPresence(Presence):
    """Reports connections and state to the store, which closes processes.

    Args:
        people: Returns the store.
        announcer: Reports state.
        runtime: Runs the timers.
    """

    def __init__(
        self, people: Callable[[], People], announcer: Announcer, runtime: Runtime
    ) -> None:
        self._people = people
        self._announcer = announcer
        self._runtime = runtime
        self._entered: set[str] = set()
        self._held: set[str] = set()  # reported
        self._holding: dict[str, object] = {}  # to be reported, or reported

    def __len__(self) -> int:
        return len(self._entered | self._holding.keys())

    def is_entered(self, process: str) -> bool:
        """Return whether the store has a connection of this worker."""
        return process in self._entered

    def told(self, process: str) -> bool:
        """Return whether the store tells this worker when a process closes."""
        return process in self._entered or process in self._held

    def make_timer(self, process: Present) -> Timeout:
        """Return a timer that reports that there is no connection."""
        return Timeout(partial(self._leave, process))

    def begin(self, process: Present) -> None:
        """Do nothing: the store has the time limit."""

    def connected(self, process: Present) -> None:
        """Report the connection, unless another one has closed just now."""
        self._runtime.timers.stop(process.expiry)
        if process.id not in self._entered and not process.closed:
            self._entered.add(process.id)
            self._people().enter(process.session.id, process.id)

    def idle(self, process: Present) -> None:
        """Report in a moment that there is no connection."""
        if process.closed:
            return
        if self._runtime.timers.stopping:
            self._leave(process)
        else:
            self._runtime.timers.start(process.expiry, PAUSE)

    def hold(self, process: Present) -> None:
        """Report that this worker keeps state; in a request, before the answer begins."""
        if process.held or process.closed:
            return
        process.held = True
        token = self._holding[process.id] = object()
        finalize(process, self._forget, process.id, token).atexit = False
        told = self._announcer.tell(process.session, partial(self._keep, process))
        self._announcer.settle(told.wait)

    def end(self, process: Present) -> None:
        """Forget a process that has closed."""
        self._runtime.timers.stop(process.expiry)
        self._entered.discard(process.id)
        self._drop(process.id)

    def release(self) -> None:
        """Report that this worker has forgotten all processes: the server stops."""
        for id_ in self._entered | self._holding.keys():
            self._people().drop(id_)
        self._entered.clear()
        self._holding.clear()
        self._held.clear()

    async def _keep(self, process: Present) -> None:
        try:
            try:
                await self._people().keep(process.session.id, process.id)
            except Moved as moved:  # this worker is told in a moment
                await self._people().keep(moved.session, process.id)
        except ProcessClosed:
            process.end()
            raise
        except Exception:
            process.held = False
            self._holding.pop(process.id, None)
            raise
        if process.id in self._holding:
            self._held.add(process.id)

    def _leave(self, process: Present) -> None:
        self._entered.discard(process.id)
        self._people().leave(process.id, process.inactive_for())

    def _forget(self, id_: str, token: object) -> None:
        """Report that the application has dropped a process; called by a finalizer."""
        self._runtime.loop.run_soon(partial(self._drop, id_, token))

    def _drop(self, id_: str, token: object | None = None) -> None:
        """Hold a process no more; with a token only for that object of the process."""
        held = self._holding.get(id_)
        if held is not None and token in (None, held):
            del self._holding[id_]
            self._held.discard(id_)
            self._people().drop(id_)
