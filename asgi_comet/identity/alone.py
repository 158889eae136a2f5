"""The calls that concern other workers, for a worker without others: they do nothing.

Owns the list of these calls; see `identity.copies` for a worker that has some.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

from asgi_comet.identity.announcing import Announcement
from asgi_comet.identity.process import Claim, Client, ClientProcess, Session

__all__ = ["Alone", "Tell"]

Tell = Callable[[Sequence[Client]], None]
"""Tells client processes that the user of their session has changed."""


class Alone:
    """The calls that concern the other workers, without other workers."""

    shared: ClassVar[bool] = False
    """Whether other workers have the same sessions and client processes."""

    end_connections: Callable[[Session], None]  # set by `Users`
    """Ends the connections of a session that has another id."""

    async def arrive(
        self, sessions: Sequence[str], process: str = "", *, default: bool = False
    ) -> None:
        """Bring the tables up to date with all workers, before a request is served.

        Args:
            sessions: The sessions that the request names.
            process: The client process that the request names.
            default: Whether the default client process of the first session may be needed.

        Raises:
            BrokerUnavailable: The other workers cannot be asked.
        """

    def check_connected(self) -> None:
        """Raise if other workers cannot be told of a change.

        Raises:
            BrokerUnavailable: They cannot.
        """

    def pending(self, session: Session) -> Announcement | None:
        """Return the newest change of a session that is on its way to the other workers."""
        del session
        return None

    def move(self, old: str, claim: Claim, before: Any, *, keep: bool, tell: Tell) -> None:
        """Tell the other workers that a session has another id and another user.

        Then its connections end everywhere, and its client processes are told, or close.

        Args:
            old: The id before.
            claim: The session by its new id.
            before: The user before.
            keep: Whether to remember the user while the session has no client process.
            tell: Tells client processes.
        """

    @abstractmethod
    def sessions(self, user: Hashable = None) -> list[Session]:
        """Return the sessions with an open client process in this worker."""

    async def everywhere(self, user: Hashable = None) -> list[Session]:
        """Return the sessions with an open client process in all workers.

        Raises:
            BrokerUnavailable: The other workers cannot be asked.
        """
        return self.sessions(user)

    async def ask(self, process: ClientProcess) -> float | None:
        """Bring a client process up to date with all workers.

        Returns:
            For how many seconds it has had no connection in any worker; `None` if there is no
            other worker.

        Raises:
            BrokerUnavailable: The other workers cannot be asked.
        """
        del process
        return None

    def tell_closed(self, process: Client) -> None:
        """Tell the other workers that the application has closed a client process."""
