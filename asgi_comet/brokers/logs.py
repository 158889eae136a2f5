"""The logs of brokers, as the worker and the broker speak of them.

A broker keeps logs: the messages of channels, with offsets and epochs, which only the broker
assigns. A worker keeps a window of each log that it follows: the newest messages. The window is a
`Log`. Must not know how a broker carries messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message, Start
from asgi_comet.errors import BrokerUnavailable, CometError
from asgi_comet.position import Position

__all__ = [
    "ChannelSpec",
    "Closed",
    "Fenced",
    "Full",
    "Log",
    "Opened",
    "Placed",
    "State",
    "Stored",
    "Unknown",
    "Unsuitable",
]

Stored = int | Callable[[], Awaitable[Position]]
"""The offset of a stored message in the epoch of the window, or a function that waits for it.

The function returns the position once the message is stored, and raises the errors of `append`.
"""


class Unsuitable(BrokerUnavailable):
    """The broker can never work as it is: an operator has to change something."""


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
        sourced: Whether the channel has a source, which exactly one worker reads.
        reclaim: Whether the channel ends once no worker uses it: a member of a family, or a channel
            without a name.
        max_age: How many seconds the log holds a message; `None` is no bound.
        guard: The name of the function that decides which clients may read; `""` for every client.
        closed: Why the channel has ended: `ended` or `failed`; `None` of a live channel.
    """

    name: str
    kind: str
    size: int
    max_bytes: int
    owner: str | None = None
    adopt: bool = False
    sourced: bool = False
    reclaim: bool = False
    max_age: float | None = None
    guard: str = ""
    closed: str | None = None


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
    def origin(self) -> object:
        """The object shared by all windows of this worker on one channel, of any epoch."""

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

    @property
    def newest(self) -> Message | None:
        """The newest message in the window; `None` if the window is empty."""

    @property
    def held_bytes(self) -> int:
        """How many bytes the messages in the window have."""

    @property
    def read_at(self) -> int:
        """When the window was last read: a number that rises with the reads of all windows."""

    def drop(self) -> None:
        """Drop all messages that the broker can give again, because the windows need room."""

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


class Fenced(CometError):
    """Another worker owns the channel by now. Nothing was published.

    Attributes:
        name: The channel.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"expected to own channel {name!r}, but another worker does")
        self.name = name


@dataclass(frozen=True, slots=True)
class Placed:
    """A located position: the reader begins after `after`, which the window now proves.

    Attributes:
        after: The offset.
        epoch: The epoch of the offset. The window may be in a later epoch by now: ask again then.
    """

    after: int
    epoch: str


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
