"""The interface of brokers, which make channels of the same name in several workers one channel.

A broker keeps logs: the messages of channels, with their offsets and epochs, which it alone gives.
A worker keeps a window of each log that it follows: the newest messages. The window is a `Log`.
The worker calls its `Broker`; the broker calls the worker's `Host`, always in the loop's thread.

A broker promises:

1. `append` stores the messages of one caller in the order of its calls, with dense offsets.
2. A window that is followed gets every message in order, or is told of a gap. A broker that cannot
   prove that no message was lost on its way reads every followed log again.
3. Only the broker says that a position is beyond the newest message, that it is of another epoch,
   or that there is no channel of a name. A window that is behind knows none of these.

The memory of one worker is a broker, too: there the window is the log, so nothing ever waits.
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
"""The offset of a message that is stored in the epoch of the window, or a function that waits until
the message is stored, and returns its position. The function raises what `append` raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """What the workers must agree about of a channel.

    Attributes:
        name: Its name, as clients say it.
        kind: How it is read: `site`, `newest`, `process` or `unlimited`.
        size: How many messages its log holds at most.
        max_bytes: How many bytes its log holds at most, one message at least.
        owner: The id of the client process that it belongs to; `None` for one of the site.
        adopt: Whether every worker makes it by the same line of code, so that a worker which is
            not the first takes it as it is.
    """

    name: str
    kind: str
    size: int
    max_bytes: int
    owner: str | None = None
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A change of the state of a keyed channel, which is stored together with its message.

    Attributes:
        changed: Values as JSON, by key.
        deleted: Keys that are gone.
    """

    changed: Mapping[str, bytes] = field(default_factory=dict)
    deleted: Sequence[str] = ()


class Log(Protocol):
    """The window of a worker on one log: what a broker sees of a channel."""

    @property
    def name(self) -> str:
        """The name of the channel, as clients say it."""

    @property
    def spec(self) -> ChannelSpec:
        """What the workers must agree about."""

    @property
    def epoch(self) -> str:
        """The epoch of the window."""

    @property
    def first(self) -> int:
        """The offset of the oldest message that the window holds, or of the next to come."""

    @property
    def top(self) -> int:
        """The offset of the newest message."""

    def append(self, data: bytes) -> int:
        """Give a message the next offset and hold it; for a broker whose log is the window.

        Raises:
            ChannelClosed: The channel has ended.
            ChannelFull: It is full.
        """

    def locate(self, start: Start) -> int | None:
        """Return the offset after which a reader begins, as the window knows it.

        Returns:
            `None`, if the window knows no such place: it is beyond the top, or of another epoch, or
            the first message has gone.
        """

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Take messages of the log; those that the window has already are left out.

        Args:
            epoch: The epoch of the log.
            first: The offset of the first message of the run.
            run: Messages with dense offsets from `first` on.
        """

    def reset(self, epoch: str, first: int) -> None:
        """Forget all messages, before the window is filled.

        Args:
            epoch: The epoch of the log.
            first: The offset of the next message that `receive` is given.
        """


@dataclass(frozen=True, slots=True)
class Opened:
    """A channel that was opened.

    Attributes:
        epoch: The epoch of its log.
        first: The offset of the oldest message that the log holds, or of the next to come.
        top: The offset of the newest message.
    """

    epoch: str
    first: int
    top: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a reader begins: after `after`, which the window proves by now."""

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
    """What a broker may call, in the thread of the loop that its `run` runs in."""

    def now(self) -> float:
        """Return what time it is, in seconds."""

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn. Thread-safe; dropped where no loop runs."""

    def appended(self, log: Log) -> None:
        """`Log.append` has added a message: wake its listeners. Thread-safe."""

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Offer messages to a window, and wake its listeners; see `Log.receive`."""

    def moved(self, log: Log, epoch: str, first: int) -> Log:
        """The log has another epoch: the readers of the window are told `full`.

        Returns:
            The window to be filled from now on, which begins as after `Log.reset`.
        """

    def cut(self, log: Log, first: int) -> None:
        """The window has missed messages that the log no longer holds: it begins anew with `first`.

        Readers that have not what comes before are told `full`.
        """

    def ended(self, log: Log, reason: str) -> None:
        """The channel has ended: `ended`, `failed` or `full`."""

    def wanted(self, log: Log, offset: int) -> None:
        """A reader asks the source of an on-demand channel, which this worker reads."""


class Bus(ABC):
    """Messages between workers."""

    @abstractmethod
    async def broadcast(self, event: str) -> int:
        """Tell an event, as JSON, to all workers, and return how many have confirmed it."""

    @abstractmethod
    async def ask(self, question: str, seconds: float) -> list[str]:
        """Ask all workers, and return the answers that came in time."""


class Broker(ABC):
    """Carries channels between workers. One belongs to one `Comet`.

    Attributes:
        shared: Whether other workers may see its channels. If not, nothing below ever waits.
    """

    shared: bool = True
    _host: Host | None = None

    @property
    def host(self) -> Host:
        """The worker that it belongs to."""
        if self._host is None:
            raise RuntimeError("expected a broker of a Comet: Comet(key, broker=...)")
        return self._host

    def bind(self, host: Host) -> None:
        """Belong to a worker. Called once, by `Comet`; does no input or output.

        Raises:
            ValueError: It belongs to another `Comet`.
        """
        if self._host is not None:
            raise ValueError(
                f"expected a broker of its own for each Comet, got a {type(self).__name__} that "
                "belongs to another one"
            )
        self._host = host

    @abstractmethod
    async def run(self) -> None:
        """Carry messages until cancelled; started again where it raises. Only if it is shared."""

    @abstractmethod
    async def hand_over(self) -> None:
        """Store what is still on its way, and leave: the server stops."""

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
            id: The same id within ten minutes is the same message: the offset is that of the first.
            state: What changes with it in the state of a keyed channel.

        Returns:
            Its offset, or how to wait for it.

        Raises:
            BrokerUnavailable: There is no room for what waits to be stored.
            ChannelClosed: The channel has ended.
            ChannelFull: It is full.
        """

    @abstractmethod
    async def open(self, log: Log) -> Opened:
        """Make the channel of a new log, or adopt the one that there is.

        Raises:
            NonUniqueChannelName: A live channel has the name, and is not to be adopted.
        """

    @abstractmethod
    async def find(self, name: str) -> ChannelSpec | None:
        """Return what there is of a site channel of another worker; `None` if there is none."""

    @abstractmethod
    async def follow(self, log: Log) -> None:
        """Return once the window gets all messages, from the newest ones that are held on."""

    @abstractmethod
    def unfollow(self, log: Log) -> None:
        """The window needs no more messages."""

    @abstractmethod
    async def place(self, log: Log, start: Start) -> Placed | Full | Closed | Unknown:
        """Find where a reader begins, where the window alone does not prove it.

        Once it returns `Placed`, the window holds what comes after that offset, or `recover` does.
        """

    @abstractmethod
    async def recover(self, log: Log, after: int, max_bytes: int) -> list[Message] | None:
        """Read what the window no longer holds.

        Args:
            log: The channel.
            after: The last offset the reader has.
            max_bytes: How many bytes of data to read, one message at least.

        Returns:
            The gapless run that begins right after it; `None` if its first message is held nowhere.
        """

    @abstractmethod
    async def end(self, log: Log, reason: str) -> None:
        """End a channel in all workers: `ended` or `failed`."""

    @abstractmethod
    def acknowledge(self, log: Log, offset: int) -> None:
        """The client of a channel of its own has all up to an offset."""

    @abstractmethod
    def mark_sent(self, log: Log, offset: int) -> None:
        """The client of a channel of its own was sent all up to an offset."""

    @abstractmethod
    def want(self, log: Log, offset: int) -> None:
        """Tell the worker that reads an on-demand source that a reader asks for a message."""

    @property
    def bus(self) -> Bus | None:
        """How workers talk to each other; `None` where there is one only."""
        return None

    @property
    def people(self) -> None:
        """Where sessions and client processes are shared; `None` until they are."""
        return None
