"""Logins and logouts of a request on their way to the other workers.

Owns what becomes of a login if another worker was first with a login of the same session. Must not
know cookies, nor how a session is changed in this worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from functools import partial

from asgi_comet.brokers.people import Moved
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.identity.announcing import Announcement
from asgi_comet.identity.arrival import Asker
from asgi_comet.identity.process import Claim, Session

__all__ = ["Login"]


class Login:
    """A login or logout, already made in this worker.

    Args:
        asker: Asks the other workers.
        user: The user; `None` for a logout.
        renew: Takes the claim that the answer's cookie names.
    """

    __slots__ = ("_asker", "_renew", "_user")

    def __init__(self, asker: Asker, user: Hashable, renew: Callable[[Claim], None]) -> None:
        self._asker = asker
        self._user = user
        self._renew = renew

    def tell(self, session: Session, unsettled: list[Callable[[], Awaitable[None]]]) -> None:
        """Let the answer wait until all workers know of the change; a thread waits now.

        Args:
            session: The session.
            unsettled: Takes the function that the server awaits before the answer.

        Raises:
            BrokerUnavailable: In a thread: the change was refused, or it takes too long.
        """
        pending = self._asker.clients.pending(session)
        if pending is None:
            return
        if not self._asker.may_block:
            unsettled.append(partial(self._settle, pending))
            return
        try:
            pending.block()
        except BrokerUnavailable as error:
            self._asker.block("comet.login()", "", partial(self._follow, self._heir(error), error))

    async def _settle(self, pending: Announcement) -> None:
        try:
            await pending.wait()
        except BrokerUnavailable as error:
            await self._follow(self._heir(error), error)

    def _heir(self, error: BrokerUnavailable) -> str:
        """Return the id that another login has given to the session.

        Raises:
            BrokerUnavailable: The change was refused for another reason, or is a logout.
        """
        moved = error.__cause__
        if self._user is None or not isinstance(moved, Moved):
            raise error
        return moved.session

    async def _follow(self, session: str, error: BrokerUnavailable) -> None:
        """Take over the login of this very user that another worker was first with.

        The user has clicked twice on login.

        Args:
            session: The id that the session has by now.
            error: Why the login was refused; raised if the other login is of another user.
        """
        await self._asker.clients.arrive([session])
        claim = self._asker.clients.claim(session)
        if claim.stale or claim.session.user != self._user:
            raise error
        self._renew(claim)
