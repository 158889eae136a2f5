"""The interface of brokers for notifiers: which client processes listen on a key.

The store has the sets of listeners; a message that is the same for all of them is sent in one call.
Keys are texts here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from asgi_comet.errors import BrokerUnavailable
from asgi_comet.position import Position

__all__ = ["Audience", "Listening", "Progress"]


@dataclass(frozen=True, slots=True)
class Listening:
    """A client process that listens on a key.

    Attributes:
        process: The client process.
        session: The present id of its session.
        user: The user as JSON; `None` for a visitor.
    """

    process: str
    session: str
    user: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the client of a client process has read a channel.

    Attributes:
        epoch: The epoch of the offsets.
        sent: The highest offset sent, as far as the store knows.
        acknowledged: The highest offset that the client has acknowledged; 0 if it never has.
        skipped: The client was told `full`, and lacks the messages after the first offset up to the
            second one for good, although the client may have acknowledged a later position.
    """

    epoch: str
    sent: int
    acknowledged: int
    skipped: tuple[int, int] = (0, 0)

    def lacks(self, offset: int) -> bool:
        """Return whether the client will never have a message."""
        after, upto = self.skipped
        return after < offset <= upto


class Audience(ABC):
    """Client processes by the keys that they listen on.

    All coroutines raise `BrokerUnavailable` if the store cannot be reached.
    """

    @abstractmethod
    async def listen(self, process: str, notifier: str, key: str) -> None:
        """Add a client process to those that listen on a key. Idempotent.

        The process has the channel of the notifier already.

        Raises:
            ChannelClosed: That channel has ended, or is full.
            ProcessClosed: The client process has closed.
        """

    @abstractmethod
    async def unlisten(self, process: str, notifier: str, key: str) -> None:
        """Remove a client process from those that listen on a key. Idempotent."""

    @abstractmethod
    def listeners(self, notifier: str, key: str) -> AsyncIterator[Sequence[Listening]]:
        """Return all client processes that listen on a key, in parts; each process once.

        A process that listens during the whole call is returned. One that has closed is removed.
        """

    @abstractmethod
    async def tell(
        self, name: str, processes: Sequence[str], data: bytes
    ) -> Sequence[Position | None]:
        """Append one message to the own channels of many client processes.

        Messages of this worker are stored in the order of the calls. A client process whose channel
        has ended, or is full now, listens on no key of the notifier any more.

        Args:
            name: The channel of each process, as clients write it: `~` and the notifier.
            processes: The client processes.
            data: The value as JSON.

        Returns:
            The position in each channel; `None` if there is no live channel, or it is full now.

        Raises:
            BrokerUnavailable: If `maybe_stored`, some of the channels may have the message.
        """

    @abstractmethod
    async def tell_each(
        self, name: str, messages: Sequence[tuple[str, bytes]]
    ) -> Sequence[Position | BrokerUnavailable | None]:
        """Append messages, each to the own channel of one client process; see `tell`.

        Args:
            name: The channel of each process, as clients write it.
            messages: The client processes and their values as JSON, in the order of storing.

        Returns:
            For each message the position, `None`, or why the store may not have the message.
        """

    @abstractmethod
    async def overflow(self, name: str, process: str) -> None:
        """End the channel of a client process as full: its worker was too slow to fill it."""

    @abstractmethod
    async def progress(self, name: str, processes: Sequence[str]) -> Sequence[Progress | None]:
        """Return how far clients have read their channels of a name; `None` without a channel."""
