"""Users: who the application says a session belongs to, and what a change of that brings about.

Owns login, logout and the question `identify`; that a changed session has another id, so that who
planted or stole the old cookie gains nothing; and that its other tabs are told. Must not know
cookies or transports.

Source: docs/semantics.md#sessions-and-users; `Os_comet` for the monitor channel.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any

import anyio
from starlette.requests import HTTPConnection

from asgi_comet._runtime.functions import call
from asgi_comet._runtime.loop import LoopThread
from asgi_comet.channels.channels import Channels
from asgi_comet.channels.feed import Feed, Wake
from asgi_comet.channels.kind import Kind
from asgi_comet.errors import (
    ChannelClosed,
    ChannelFull,
    CometError,
    NonUniqueChannelName,
    ProcessClosed,
)
from asgi_comet.identity.process import Caller, ClientProcess, Session
from asgi_comet.identity.registry import Processes

__all__ = ["ASK_LIMIT", "MONITOR", "Identify", "Moved", "Users", "check_user"]

_logger = logging.getLogger(__name__)

ASK_LIMIT = 10.0  # seconds that the application may take to say who somebody is
MONITOR = "comet"  # the process channel `~comet`, which tells of the session itself
USER_CHANGED = b'{"event":"user-changed"}'

Identify = Callable[[HTTPConnection], Awaitable[Any] | Any]
"""Says who a connection belongs to: a hashable user id, or `None` for a visitor."""


class Moved(Exception):
    """A session got another id while the application was asked about it."""


class Users:
    """Who sessions belong to. Thread-safe where nothing else is said.

    Args:
        processes: The sessions there are.
        channels: Where tabs are told.
        loop: Where connections are ended.

    Attributes:
        identify: How the application tells; `None` if it does so by `login` alone.
    """

    def __init__(self, processes: Processes, channels: Channels, loop: LoopThread) -> None:
        self._processes = processes
        self._channels = channels
        self._loop = loop
        self.identify: Identify | None = None

    async def ask(self, connection: HTTPConnection) -> Hashable:
        """Ask the application who a connection belongs to.

        Raises:
            TimeoutError: It did not say so within 10 s.
            TypeError: What it says cannot be an id: it is not hashable.
            Exception: What the application raises.
        """
        assert self.identify is not None  # noqa: S101 - for the type checker
        with anyio.fail_after(ASK_LIMIT):
            user = await call(self.identify, connection)
        return check_user(user)

    async def recognise(
        self, id_: str, connection: HTTPConnection, current: ClientProcess | None = None
    ) -> tuple[Session, bool]:
        """Return the session of an id, as the application sees it now.

        Args:
            id_: What the cookie names.
            connection: What the application is asked about.
            current: The tab that it comes from, which need not be told.

        Returns:
            The session, and whether it has another cookie than that one.

        Raises:
            Moved: It is the id of before a login, and nobody says that it is the same user.
            Exception: As `ask`; nothing has changed then.
        """
        heir = self._processes.heir(id_)
        if heir is not None:
            await self.check_heir(heir, connection)
            return heir, True
        session = self._processes.session(id_)
        if self.identify is None:
            return session, False
        return session, await self.identify_session(session, connection, current)

    async def check_heir(self, session: Session, connection: HTTPConnection) -> None:
        """Check whether a connection with the cookie of before a login may be of the session.

        It may if the application says that it is the very user who has logged in: then the answer
        with the new cookie is still on its way.

        Raises:
            Moved: It does not say so, or nobody can ask it.
            Exception: As `ask`.
        """
        if self.identify is not None and session.user is not None:
            user = await self.ask(connection)
            if user is not None and user == session.user:
                return
        raise Moved

    async def identify_session(
        self, session: Session, connection: HTTPConnection, current: ClientProcess | None = None
    ) -> bool:
        """Bring a session up to date with what the application says, which has `identify`.

        Args:
            session: The session.
            connection: What the application is asked about.
            current: The tab that it comes from, which need not be told.

        Returns:
            Whether its user, and therefore its id, has changed.

        Raises:
            Moved: The session has another id by now; what was asked is about the one before.
            Exception: As `ask`; nothing has changed then.
        """
        id_ = session.id
        user = await self.ask(connection)
        if session.id != id_:
            raise Moved
        if user == session.user:
            return False
        self.change(session, user, current=current)
        return True

    def change(
        self,
        session: Session,
        user: Hashable,
        *,
        current: ClientProcess | None = None,
        keep: bool = False,
    ) -> Caller:
        """Let a session belong to somebody else from now on.

        When this returns its id is another one, and its connections end. A visitor who logs in
        keeps the client processes; when a user goes, be it for another one, they close.

        Args:
            session: The session.
            user: Whose it is; `None` for a visitor.
            current: The tab that did it, which need not be told.
            keep: Whether to remember that also while the session has no client process.

        Returns:
            The session with its new id; should two threads do this at once, one of them has moved.
        """
        before = session.user
        caller = Caller(session, self._processes.succeed(session))
        if before is not None and user != before:
            for process in session.processes:
                process.close()
        self._loop.run_now(partial(_end_connections, session))
        self._processes.assign(caller, user, keep=keep)  # now: nobody hears what is for this user
        for process in session.processes:
            if process is not current:
                self._tell(process)
        return caller

    def _tell(self, process: ClientProcess) -> None:
        try:
            self._channels.publish(self._monitor(process), USER_CHANGED)
        except NonUniqueChannelName:  # another thread has made it in this very moment
            self._tell(process)
        except (ChannelClosed, ChannelFull, ProcessClosed):
            pass  # nobody reads it
        except CometError as error:  # too many channels
            _logger.warning("a tab was not told that its session's user has changed: %s", error)

    def _monitor(self, process: ClientProcess) -> Feed:
        feed = process.place.directory.find(f"~{MONITOR}")
        if feed is not None and feed.closed is None:
            return feed
        made = self._channels.open(
            Kind.PROCESS, process.place, None, name=MONITOR, size=10, type_=None
        )
        return made._feed


def check_user(user: Any) -> Hashable:
    """Return a user, if it can be one.

    Raises:
        TypeError: It is not hashable.
    """
    try:
        hash(user)
    except TypeError:
        raise TypeError(
            f"expected a user id that is hashable, like a number or a text, "
            f"got {type(user).__name__}"
        ) from None
    found: Hashable = user
    return found


def _end_connections(session: Session) -> None:
    """End all there are: nothing more is told on a connection that came with the old cookie."""
    for listener in [x for process in session.processes for x in process.listeners]:
        listener.wake(Wake.MOVED)
    for listener in list(session.visitors):
        listener.wake(Wake.MOVED)
