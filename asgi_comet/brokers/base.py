"""The interface of brokers, which join channels of the same name in several workers.

A broker keeps logs: the messages of channels, with offsets and epochs, which only the broker
assigns. A worker keeps a window of each log that it follows: the newest messages. The window is a
`Log`.
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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message, Position, Start

__all__ = [
    "Broker",
    "Bus",
    "ChannelSpec",
    "Closed",
    "Full",
    "Host",
    "Log",
    "Opened",
    "Placed",
    "Received",
    "State",
    "Stored",
    "Unknown",
]

Stored = int | Callable[[], Awaitable[Position]]
"""The offset of a stored message in the epoch of the window, or a function that waits for it.

The function returns the position once the message is stored, and raises the errors of `append`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """The properties of a channel that all workers must agree on.

    Attributes:
        name: The name, as clients write it.
        kind: The kind: `site`, `newest`, `process` or `unlimited`.
        size: How many messages the log holds at most.
        max_bytes: How many bytes the log holds at most, but at least one message.
        owner: The id of the client process of the channel; `None` for a site channel.
        adopt: Whether every worker makes the channel by the same line of code, so that all but the
            first worker adopt the existing one.
    """

    name: str
    kind: str
    size: int
    max_bytes: int
    owner: str | None = None
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A change of the state of a keyed channel, stored together with its message.

    Attributes:
        changed: Values as JSON, by key.
        deleted: Removed keys.
    """

    changed: Mapping[str, bytes] = field(default_factory=dict)
    deleted: Sequence[str] = ()


class Log(Protocol):
    """The window of a worker on one log: a channel as the broker uses it."""

    @property
    def name(self) -> str:
        """The name of the channel, as clients write it."""

    @property
    def spec(self) -> ChannelSpec:
        """The properties that all workers must agree on."""

    @property
    def epoch(self) -> str:
        """The epoch of the window."""

    @property
    def first(self) -> int:
        """The offset of the oldest message in the window, or of the next one if it is empty."""

    @property
    def top(self) -> int:
        """The offset of the newest message."""

    def append(self, data: bytes) -> int:
        """Store a message under the next offset; for a broker whose log is the window.

        Raises:
            ChannelClosed: The channel has ended.
            ChannelFull: The channel is full.
        """

    def locate(self, start: Start) -> int | None:
        """Return the offset after which a reader begins, according to the window.

        Returns:
            The offset; `None` if the position is beyond the top or of another epoch, or if the
            first message is no longer held.
        """

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages of the log; messages that the window has already are skipped.

        Args:
            epoch: The epoch of the log.
            first: The offset of the first message of the run.
            run: Messages with dense offsets from `first` on.
        """

    def reset(self, epoch: str, first: int) -> None:
        """Drop all messages, before the window is filled.

        Args:
            epoch: The epoch of the log.
            first: The offset of the next message passed to `receive`.
        """


@dataclass(frozen=True, slots=True)
class Opened:
    """A channel that was opened.

    Attributes:
        epoch: The epoch of the log.
        first: The offset of the oldest message in the log, or of the next one if it is empty.
        top: The offset of the newest message.
    """

    epoch: str
    first: int
    top: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A located position: the reader begins after `after`, which the window now proves."""

    after: int


@dataclass(frozen=True, slots=True)
class Full:
    """The messages after a position are no longer held, or the position is of another epoch."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The channel has ended; `reason` is `ended` or `failed`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no channel of that name."""


class Host(Protocol):
    """The functions that a broker may call, in the thread of the loop that runs `Broker.run`."""

    def now(self) -> float:
        """Return the time, in seconds."""

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn; dropped without a loop. Thread-safe."""

    def appended(self, log: Log) -> None:
        """Wake the listeners after `Log.append` has added a message. Thread-safe."""

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages to a window, and wake its listeners; see `Log.receive`."""

    def moved(self, log: Log, epoch: str, first: int) -> Log:
        """Report that the log has another epoch: the readers of the window are told `full`.

        Returns:
            The window to fill from now on, which is as after `Log.reset`.
        """

    def cut(self, log: Log, first: int) -> None:
        """Restart the window at `first`: it missed messages that the log no longer holds.

        Readers that lack messages before `first` are told `full`.
        """

    def ended(self, log: Log, reason: str) -> None:
        """Report that the channel has ended: `ended`, `failed` or `full`."""

    def wanted(self, log: Log, offset: int) -> None:
        """Report that a reader asks for a message of an on-demand channel of this worker."""


class Bus(ABC):
    """Messages between workers."""

    @abstractmethod
    async def broadcast(self, event: str) -> int:
        """Send an event, as JSON, to all workers; return how many workers confirmed it."""

    @abstractmethod
    async def ask(self, question: str, seconds: float) -> list[str]:
        """Ask all workers, and return the answers that came in time."""


class Broker(ABC):
    """Carries channels between workers. A broker belongs to one `Comet`.

    Attributes:
        shared: Whether other workers may see the channels. If not, no operation waits.
    """

    shared: bool = True
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

    @abstractmethod
    async def run(self) -> None:
        """Carry messages until cancelled; restarted after an error. Only called if `shared`."""

    @abstractmethod
    async def hand_over(self) -> None:
        """Store the pending messages, and disconnect: the server stops."""

    @abstractmethod
    def append(
        self,
        log: Log,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
        state: State | None = None,
    ) -> Stored:
        """Append a message to a channel, for all workers. Thread-safe; never waits.

        Args:
            log: The channel.
            data: The value as JSON.
            id: A second message with the same id within ten minutes is not stored: the offset of
                the first is returned.
            state: The change of the state of a keyed channel.

        Returns:
            The offset, or a function that waits for it.

        Raises:
            BrokerUnavailable: Too many messages wait to be stored.
            ChannelClosed: The channel has ended.
            ChannelFull: The channel is full.
        """

    @abstractmethod
    async def open(self, log: Log) -> Opened:
        """Make the channel of a new log, or adopt the existing one.

        Raises:
            NonUniqueChannelName: A live channel has the name, and may not be adopted.
        """

    @abstractmethod
    async def find(self, name: str) -> ChannelSpec | None:
        """Return the properties of a site channel of another worker; `None` if there is none."""

    @abstractmethod
    async def follow(self, log: Log) -> None:
        """Follow a log; return once the window receives all messages, after the held ones."""

    @abstractmethod
    def unfollow(self, log: Log) -> None:
        """Stop sending messages to the window."""

    @abstractmethod
    async def place(self, log: Log, start: Start) -> Placed | Full | Closed | Unknown:
        """Locate a start position that the window alone cannot prove.

        After `Placed`, the messages after that offset are in the window, or `recover` returns them.
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
        """End a channel in all workers, with the reason `ended` or `failed`."""

    @abstractmethod
    def acknowledge(self, log: Log, offset: int) -> None:
        """Record that the client process of a channel has all messages up to an offset."""

    @abstractmethod
    def mark_sent(self, log: Log, offset: int) -> None:
        """Record that the client process of a channel was sent all messages up to an offset."""

    @abstractmethod
    def want(self, log: Log, offset: int) -> None:
        """Ask the worker that reads an on-demand source for messages up to an offset."""

    @property
    def bus(self) -> Bus | None:
        """The messages between workers; `None` with one worker."""
        return None

    @property
    def people(self) -> None:
        """The sharing of sessions and client processes; not implemented, so `None`."""
        return None
