"""Users: the user of a session, as the application tells, and the consequences of a change.

Owns login, logout and the question `identify`. A changed session has another id, so a fixed or
stolen cookie is worthless after login; the other tabs of the session are told. Must not know
cookies or transports.

Source: docs/semantics.md#sessions-and-users; `Os_comet` for the monitor channel.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import anyio
from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_comet._runtime.functions import call
from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.channels import AllChannels
from asgi_comet.channels.feed import Feed, Wake
from asgi_comet.channels.kind import Kind
from asgi_comet.errors import (
    ChannelClosed,
    ChannelFull,
    CometError,
    NonUniqueChannelName,
    ProcessClosed,
)
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.process import Claim, Client, Session, Stale
from asgi_comet.identity.spelling import Spelling
from asgi_comet.log_events import event

__all__ = ["ASK_LIMIT", "MONITOR", "Identify", "Users", "check_user"]

_logger = logging.getLogger(__name__)

ASK_LIMIT = 10.0  # seconds that `identify` may take
MONITOR = "comet"  # the process channel `~comet`, which tells of the session itself
USER_CHANGED = b'{"event":"user-changed"}'

Identify = Callable[[HTTPConnection], Awaitable[Any] | Any]
"""Returns the user of a connection: a hashable id, or `None` for a visitor."""


class Users:
    """The users of sessions. Thread-safe unless a method says otherwise.

    Args:
        clients: The sessions of this worker.
        channels: Publishes a change to the tabs.
        runtime: The thread of the connections, and the counters.
        spelling: The spelling of users for other workers; `None` if there are none.

    Attributes:
        identify: The application's function; `None` if only `login` sets the user of a session.
    """

    def __init__(
        self,
        clients: Clients,
        channels: AllChannels,
        runtime: Runtime,
        spelling: Spelling | None = None,
    ) -> None:
        clients.end_connections = self.end_connections
        self._clients = clients
        self._spelling = spelling
        self._channels = channels
        self._loop = runtime.loop
        self._asked = runtime.counters.asked["identify"]
        self.identify: Identify | None = None

    def end_connections(self, session: Session) -> None:
        """End all connections of a session. In the loop's thread."""
        _end_connections(session)

    async def ask(self, scope: Scope) -> Hashable:
        """Ask the application for the user of a request.

        Raises:
            TimeoutError: The application did not answer within 10 s.
            TypeError: The answer cannot be an id: it is not hashable.
            Exception: Any exception of the application.
        """
        assert self.identify is not None  # noqa: S101 - for the type checker
        began = perf_counter()
        try:
            with anyio.fail_after(ASK_LIMIT):
                user = await call(self.identify, HTTPConnection(scope))
        finally:
            self._asked.observe(perf_counter() - began)
        return self.check(user)

    def check(self, user: Any) -> Hashable:
        """Return a value that can be a user.

        Raises:
            TypeError: It is not hashable, or it has no spelling that other workers can read.
        """
        checked = check_user(user)
        if self._spelling is not None:
            self._spelling.write(checked)
        return checked

    async def recognise(self, claim: Claim, scope: Scope, tab: Client | None = None) -> Claim:
        """Bring a claim up to date with the answer of the application.

        A stale claim is made good if the application says that the request is of the very user who
        has logged in: then the answer with the new cookie is still on its way.

        Args:
            claim: The session that the request names.
            scope: The request.
            tab: The client process that the request comes from, which need not be told.

        Returns:
            The claim itself, or another one, whose id the answer's cookie must name.

        Raises:
            Stale: The claim is stale and was not made good, or became stale meanwhile.
            Exception: As `ask`; nothing has changed then.
        """
        session, stale = claim.session, claim.stale
        if self.identify is None or (stale and session.user is None):
            if stale:
                raise Stale
            return claim
        user = await self.ask(scope)
        found = Claim.of(session) if stale else claim
        if stale and (user is None or user != session.user):
            raise Stale
        if user != session.user:
            changed = self.change(claim, user, tab=tab)
            pending = self._clients.pending(session)
            if pending is not None:
                await pending.wait()
            return changed
        if found.stale:  # looked at last, because a change gives another id first
            raise Stale
        return found

    def change(
        self,
        claim: Claim,
        user: Hashable,
        *,
        tab: Client | None = None,
        keep: bool = False,
    ) -> Claim:
        """Give a session another user.

        When this returns the session has another id, and its connections end. A visitor who logs in
        keeps the client processes; when a user leaves, for another user too, they close. With other
        workers, all but the id and the user changes once they know; see `Clients.pending`.

        Args:
            claim: The session.
            user: The user; `None` for a visitor.
            tab: The client process that asked for the change, which need not be told.
            keep: Whether to remember the user while the session has no client process.

        Returns:
            The claim by the new id; should two threads do this at once, one of the two is stale.

        Raises:
            BrokerUnavailable: The other workers cannot be told; nothing has changed.
            Stale: The claim is stale.
        """
        self._clients.check_connected()
        old = claim.id
        claim, before = self._clients.replace_id(claim)
        session = claim.session
        if self._clients.shared:
            self._clients.assign(claim, user, keep=keep)
            self._clients.move(old, claim, before, keep=keep, tell=partial(self._tell_all, tab))
            return claim
        if before is not None and user != before:
            for process in session._clients:
                process.close()
        self._loop.run_now(partial(_end_connections, session))
        self._clients.assign(claim, user, keep=keep)  # last: no old connection is this user's
        self._tell_all(tab, session._clients)
        return claim

    def _tell_all(self, tab: Client | None, processes: Sequence[Client]) -> None:
        for process in processes:
            if process is not tab:
                self.tell(process, USER_CHANGED)

    def tell(self, process: Client, data: bytes) -> None:
        """Publish JSON on the channel `~comet` of a client process, if that is possible."""
        try:
            self._channels.appending.publish(self._monitor(process), data)
        except NonUniqueChannelName:  # another thread has made it in this very moment
            self.tell(process, data)
        except (ChannelClosed, ChannelFull, ProcessClosed):
            pass  # the tab has gone or does not read
        except CometError as error:  # too many channels
            _logger.warning(
                "a tab was not told of an event: %s",
                error,
                extra=event("change.missed", reason=str(error)),
            )

    def _monitor(self, process: Client) -> Feed:
        feed = process.place.directory.find(f"~{MONITOR}")
        if feed is not None and feed.closed is None:
            return feed
        made = self._channels.open(
            Kind.PROCESS, process.place, None, name=MONITOR, size=10, type_=None
        )
        return made._feed


def check_user(user: Any) -> Hashable:
    """Return a value that can be a user.

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
    """End all connections of a session: a connection with the old cookie gets nothing more."""
    for listener in [x for process in session._clients for x in process.listeners]:
        listener.wake(Wake.MOVED)
    for listener in list(session._connections):
        listener.wake(Wake.MOVED)
