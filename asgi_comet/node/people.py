"""The functions that a broker may call about sessions and client processes.

Owns nothing: calls are passed to the other parts. Must not know how a broker carries them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from asgi_comet._runtime.tasks import Background
from asgi_comet.brokers.logs import ChannelSpec, Log
from asgi_comet.brokers.people import PeopleHost
from asgi_comet.identity.changes import Changes
from asgi_comet.identity.copies import Copies
from asgi_comet.identity.endings import Endings

__all__ = ["NoPeople", "RoomsPeople"]


class NoPeople(PeopleHost):
    """The functions where the broker does not share people, so that none of them is called.

    Attributes:
        window_of: As of `RoomsPeople`.
        on_missed: As of `RoomsPeople`.
    """

    window_of: Callable[[ChannelSpec], Log | None]
    on_missed: Callable[[], None]

    def closed(self, process: str) -> None:
        """Do nothing."""

    def moved(self, session: str, new: str, user: str | None) -> None:
        """Do nothing."""

    def replaced(self, process: str, reader: int) -> None:
        """Do nothing."""

    def window(self, spec: ChannelSpec) -> None:
        """Return no window."""

    def ending(self, process: str, done: Callable[[], None]) -> None:
        """Do nothing."""

    def told(self, event: str) -> None:
        """Do nothing."""

    def missed(self) -> None:
        """Do nothing."""


class RoomsPeople(PeopleHost):
    """The sessions and client processes of one worker, as a broker uses them.

    Args:
        copies: The copies of this worker.
        endings: The functions that run once for each closed client process.
        background: Runs these.
        changes: The changes that every worker makes.

    Attributes:
        window_of: Returns the window on an own channel.
        on_missed: Called when changes have passed of which this worker will not hear.
    """

    def __init__(
        self, copies: Copies, endings: Endings, background: Background, changes: Changes
    ) -> None:
        self._changes = changes
        self.window_of: Callable[[ChannelSpec], Log | None] = lambda spec: None
        self.on_missed: Callable[[], None] = lambda: None
        self._copies = copies
        self._endings = endings
        self._background = background

    def closed(self, process: str) -> None:
        """Close a client process in this worker."""
        self._copies.closed(process)

    def moved(self, session: str, new: str, user: str | None) -> None:
        """Give a session another id and user in this worker, and end its connections."""
        self._copies.moved(session, new, user)

    def replaced(self, process: str, reader: int) -> None:
        """Wake the reader of a client process, if it is the one that reads no longer."""
        found = self._copies.find(process)
        if found is not None:
            found.replaced(reader)

    def window(self, spec: ChannelSpec) -> Log | None:
        """Return the window on an own channel, made if this worker has none."""
        return self.window_of(spec)

    def ending(self, process: str, done: Callable[[], None]) -> None:
        """Run the functions for a closed client process."""
        if self._endings:
            self._background.start(partial(self._endings.run, process, done))
        else:
            done()

    def told(self, event: str) -> None:
        """Make a change that a worker has made."""
        self._changes.told(event)

    def missed(self) -> None:
        """Doubt the rights of all clients of this worker."""
        self.on_missed()
