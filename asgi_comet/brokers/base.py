"""The interface of brokers, which join channels of the same name in several workers.

A broker keeps logs, of which a worker has windows, see `brokers.logs`.
The worker calls its `Broker`; the broker calls the worker's `Host`, always in the loop's thread.

A broker promises:

1. `append` stores the messages of one caller in the order of its calls, with dense offsets.
2. A followed window gets every message in order, or is told of a gap. A broker that cannot prove
that no message was lost in transit reads every followed log again.
3. Only the broker decides that a position is beyond the newest message, that a position is of
another epoch, or that a channel does not exist. A window that is behind cannot decide so.

The memory of one worker is also a broker: its window is the log, so no operation waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.condition import Condition
from asgi_comet.brokers.host import Host
from asgi_comet.brokers.logs import (
    ChannelSpec,
    Closed,
    Full,
    Log,
    Opened,
    Placed,
    State,
    Stored,
    Unknown,
)
from asgi_comet.brokers.people import People
from asgi_comet.core.messages import Message, Start

__all__ = ["Broker", "Host"]


class Broker(ABC):
    """Carries channels between workers. A broker belongs to one `Comet`.

    Attributes:
        shared: Whether other workers may see the channels. If not, no operation waits.
        shares_people: Whether other workers serve the same client processes: `people` is not `None`
            once the broker is bound.
        draining: Set while the server stops: this worker then owns no further channels.
        only_publishes: Set while the process does not serve: `run` then stores messages, and
            neither follows nor owns a channel; no other worker learns of this one.
        patience: How many seconds a message may wait to be stored.
    """

    shared: bool = True
    shares_people: bool = False
    draining: bool = False
    only_publishes: bool = False
    patience: float = 60.0
    _host: Host | None = None

    @property
    def host(self) -> Host:
        """The worker of the broker."""
        if self._host is None:
            raise RuntimeError("expected a broker of a Comet: Comet(key, broker=...)")
        return self._host

    def bind(self, host: Host) -> None:
        """Bind the broker to a worker. Called once, by `Comet`; does no input or output.

        Raises:
            ValueError: The broker belongs to another `Comet`.
        """
        if self._host is not None:
            raise ValueError(
                f"expected a broker of its own for each Comet, got a {type(self).__name__} that "
                "belongs to another one"
            )
        self._host = host

    def prepare(self) -> None:  # noqa: B027 - most brokers have nothing to prepare
        """Prepare `run` and `ready`, in the event loop that they will be called in.

        Raises:
            Unsuitable: The broker cannot run in this event loop.
        """

    async def ready(self) -> None:  # noqa: B027 - most brokers are ready at once
        """Return once `run` carries messages for the first time.

        Raises:
            Unsuitable: The broker never will.
        """

    @abstractmethod
    async def run(self) -> None:
        """Carry messages until cancelled; restarted after an error. Only called if `shared`."""

    def leave(self) -> None:  # noqa: B027 - most brokers wait for nothing
        """Wait no more for a store that is away: the server stops."""

    @abstractmethod
    async def hand_over(self) -> None:
        """Store the pending messages, and disconnect: the server stops."""

    def give_up(self) -> None:  # noqa: B027 - most brokers store at once
        """Drop the messages that wait to be stored, and tell their publishers."""

    def forked(self) -> None:  # noqa: B027 - most brokers have no connection
        """Forget the connection, and what waits: they are of the process before the fork."""

    @abstractmethod
    def append(
        self,
        log: Log,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
        state: State | None = None,
        sourced: bool = False,
    ) -> Stored:
        """Append a message to a channel, for all workers. Thread-safe; never waits.

        Args:
            log: The channel.
            data: The value as JSON.
            id: A second message with the same id within ten minutes is not stored: the offset of
                the first is returned.
            state: The change of the state of a keyed channel.
            sourced: Whether the message is a value of the channel's source. The broker stores the
                message only while this worker owns the channel, and never gives it up.

        Returns:
            The offset, or a function that waits for it.

        Raises:
            BrokerUnavailable: Too many messages wait to be stored.
            ChannelClosed: The channel has ended.
            ChannelFull: The channel is full.
            Fenced: Another worker owns the channel by now.
        """

    @abstractmethod
    async def open(self, log: Log, *, make: bool = True) -> Opened:
        """Make the channel of a new log, or adopt the existing one.

        Args:
            log: The log.
            make: Whether to make the channel, if there is none.

        Raises:
            ChannelClosed: There is no channel to adopt.
            NonUniqueChannelName: A live channel has the name, and may not be adopted.
        """

    @abstractmethod
    async def find(self, name: str) -> ChannelSpec | None:
        """Return the properties of a site channel of another worker; `None` if there is none.

        A channel that has ended is found for some minutes, with the reason.
        """

    @abstractmethod
    async def follow(self, log: Log) -> None:
        """Follow a log; return once the window receives all messages, after the held ones.

        Of a channel that has ended the window gets the messages that are still held, and the worker
        is told `Host.ended`.
        """

    @abstractmethod
    def unfollow(self, log: Log) -> None:
        """Stop sending messages to the window. Idempotent; thread-safe."""

    @abstractmethod
    async def place(self, log: Log, start: Start) -> Placed | Full | Closed | Unknown:
        """Locate a start position that the window alone cannot prove.

        After `Placed`, the messages after that offset are in the window, or `recover` returns them.
        A channel that has ended is `Closed` only for a reader that has all of its messages.
        """

    @abstractmethod
    async def recover(self, log: Log, after: int, max_bytes: int) -> list[Message] | None:
        """Read messages that the window no longer holds.

        Args:
            log: The channel.
            after: The last offset that the reader has.
            max_bytes: How many bytes of data to read at most, but at least one message.

        Returns:
            The gapless run right after the offset; `None` if its first message is no longer stored.
        """

    @abstractmethod
    async def end(self, log: Log, reason: str) -> None:
        """End a channel in all workers, with the reason `ended` or `failed`.

        Returns once a followed window has all messages of the channel.
        """

    @abstractmethod
    def acknowledge(self, log: Log, offset: int) -> None:
        """Record that the client process of a channel has all messages up to an offset."""

    def skip(self, log: Log, after: int, upto: int) -> None:  # noqa: B027 - see `acknowledged`
        """Record that the client process of a channel was told `full`, so lacks messages.

        Args:
            log: The window.
            after: The highest offset that the client has acknowledged, as far as this worker knows.
            upto: The offset that the client goes on after.
        """

    async def acknowledged(self, log: Log) -> Progress | None:
        """Return what the client process of a channel has acknowledged anywhere.

        `None` if the store knows nothing. The log may have another epoch than the window by now.
        Asked a few times, and only while the application awaits an outcome.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
        """
        del log
        return None

    @abstractmethod
    def mark_sent(self, log: Log, offset: int) -> None:
        """Record that the client process of a channel was sent all messages up to an offset."""

    @abstractmethod
    def want(self, log: Log, offset: int) -> None:
        """Ask the worker that reads an on-demand source for messages up to an offset."""

    # Ownership: exactly one worker reads the source of a channel. Call in the loop's thread.

    @abstractmethod
    def bid(self, log: Log, *, continues: bool = False) -> None:
        """Offer to own an opened channel, until `release`. Idempotent.

        The broker calls `Host.owned` when this worker owns the channel, and `Host.disowned` when it
        does no longer.

        Args:
            log: The channel.
            continues: Whether the source goes on from the newest message, so that readers miss
                nothing even if the owner before did not stop in order.
        """

    @abstractmethod
    def release(self, log: Log, *, clean: bool) -> None:
        """Withdraw the bid; if this worker owns the channel, another worker may own it now.

        Args:
            log: The channel.
            clean: Whether the source is closed, and all its messages are stored.
        """

    @abstractmethod
    def renew(self, log: Log) -> None:
        """Give an owned channel a fresh epoch, because its source failed."""

    @abstractmethod
    def retire(self, log: Log, linger: float) -> bool:
        """Report that this worker has not used an owned channel for `linger` seconds.

        The broker ends the channel once no worker has used it for that time, see `Host.in_use`.

        Args:
            log: The channel.
            linger: For how long the channel was not used. With 0 the channel ends at once, unless
                another worker follows it.

        Returns:
            Whether this worker owns the channel; if not, another worker ends it.
        """

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        """Return the answers of all workers, this one included, that came in time.

        Raises:
            BrokerUnavailable: The other workers cannot be reached.
        """
        return [self.host.answer(question)]

    @property
    def connected(self) -> bool:
        """Whether other workers can be told something now."""
        return True

    @property
    def away(self) -> float | None:
        """Seconds without a connection; `None` with one, infinite if none since the start."""
        return None if self.connected else 0.0

    @property
    def trouble(self) -> str:
        """Why the broker carries no messages at the moment; `""` if it does, or was not tried."""
        return ""

    @property
    def condition(self) -> Condition:
        """The number of this worker, and what the connection has been through, for operators."""
        return Condition()

    @property
    def mixed(self) -> bool:
        """Whether workers declare different names, because a deployment is under way."""
        return False

    @property
    def elsewhere(self) -> int:
        """How many members of families only other workers have, as far as this worker knows."""
        return 0

    @property
    def workers(self) -> int:
        """How many workers were alive at the last heartbeat, this one included."""
        return 1

    @property
    def people(self) -> People | None:
        """The sharing of sessions and client processes; `None` if the worker has its own."""
        return None
