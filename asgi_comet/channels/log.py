"""The messages of one incarnation of a channel, and how a channel of each kind is read.

Owns the offset of a start position, gaps, and `full`; encodes messages once for all listeners at
the same place. Must not know listeners, names, sources, or the bytes that a transport sends.

Divergences from `Ocsigen_comet` and `eliom_comet`:

1. A positioned history with an epoch is kept, not a queue for each listener.
2. A sent message is kept until the client's next position acknowledges it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.channels.chunks import Chunks
from asgi_comet.channels.kind import Kind
from asgi_comet.core.history import History, Received
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Message, Now, Start
from asgi_comet.core.runs import Chunk, Encoder
from asgi_comet.errors import ChannelClosed, ChannelFull
from asgi_comet.position import Position

__all__ = ["MessageLog"]

_reads = count(1)


class MessageLog:
    """The messages of a channel in this worker: the `Log` of the broker. Thread-safe.

    Args:
        name: The channel's name as clients write it.
        kind: The kind of the channel.
        history: The messages. Read and written under `lock`, since publishers run in any thread.
    """

    __slots__ = (
        "acknowledged",
        "adopt",
        "began",
        "broker",
        "chunks",
        "closed",
        "closing",
        "dropped",
        "foreign",
        "guard",
        "history",
        "kind",
        "left",
        "live",
        "local",
        "lock",
        "name",
        "origin",
        "owner",
        "read_at",
        "reclaim",
        "sent",
        "sourced",
    )

    def __init__(self, name: str, kind: Kind, history: History) -> None:
        self.name: str = name
        self.kind: Kind = kind
        self.history: History = history
        self.lock: threading.Lock = threading.Lock()
        self.closed: str | None = None  # the reason: `ended`, `failed`, `full` or `restarted`
        self.closing: str | None = None  # the same, while the broker has not ended it yet
        self.left: bool = False  # whether only other workers go on with the channel
        self.began: int = 0  # the offset of the newest message when the epoch began
        self.sent: int = 0  # the highest offset ever sent in an answer
        self.acknowledged: int = 0  # the highest offset acknowledged on a process channel
        self.local: bool = True  # whether only this worker publishes on the channel
        self.live: bool = False  # if not local: whether this worker receives every message
        self.adopt: bool = False  # whether every worker makes the channel by the same line of code
        self.origin: object = object()  # the same in all incarnations
        self.sourced: bool = False  # whether the channel has a source
        self.reclaim: bool = False  # whether the channel ends once no worker uses it
        self.dropped: bool = False  # whether the broker holds more messages than this window
        self.read_at: int = 0  # the number of the last read, of all reads of all channels
        self.guard: str = ""  # if not local: the name of the rule that decides who may read
        self.foreign: bool = False  # whether another worker has made the shared own channel
        self.owner: str | None = None  # the client process of a channel that workers share
        self.broker: Broker | None = None  # told what the client process has, in the same case
        self.chunks: Chunks = Chunks()  # shared by all listeners at the same place

    def share(self, log: MessageLog) -> None:
        """Take over the properties that workers agree on, from the incarnation before."""
        self.origin, self.local, self.live = log.origin, log.local, log.live
        self.guard, self.adopt = log.guard, log.adopt
        self.sourced, self.reclaim = log.sourced, log.reclaim
        self.owner, self.broker = log.owner, log.broker

    @property
    def readable(self) -> bool:
        """Whether there is a history to read. A full channel has none."""
        return self.closed != "full"

    @property
    def over(self) -> bool:
        """Whether the channel has ended, or this worker has left the channel."""
        return self.left or self.closed is not None

    @property
    def outlived(self) -> bool:
        """Whether the channel has ended, and other workers may have made one of the same name."""
        return not self.local and self.closed is not None

    @property
    def window(self) -> int:
        """The highest offset that may be read of an on-demand source.

        The window is the acknowledged offset plus the size of the history, so a message that the
        client has not acknowledged is never displaced.
        """
        return self.acknowledged + self.history.size

    @property
    def epoch(self) -> str:
        """The epoch of this incarnation of the channel."""
        return self.history.epoch

    @property
    def first(self) -> int:
        """The offset of the oldest message held, or of the next message if none is held."""
        return self.history.first

    @property
    def top(self) -> int:
        """The offset of the newest message."""
        return self.history.top

    @property
    def spec(self) -> ChannelSpec:
        """The properties that all workers sharing the channel must agree on."""
        history = self.history
        return ChannelSpec(
            name=self.name,
            kind=self.kind.value,
            size=history.size,
            max_bytes=history.max_bytes,
            owner=self.owner,
            adopt=self.adopt,
            sourced=self.sourced,
            reclaim=self.reclaim,
            max_age=history.max_age,
            guard=self.guard,
        )

    @property
    def newest(self) -> Message | None:
        """The newest message held; `None` if none is held."""
        with self.lock:
            run = self.history.after(self.history.top - 1)
            return run[0] if run else None

    @property
    def held_bytes(self) -> int:
        """How many bytes the messages held have."""
        return self.history.bytes

    def drop(self) -> None:
        """Drop all messages that the broker can give again. Thread-safe."""
        if not self.kind.only_last:
            with self.lock:
                self.history.drop_through(self.history.top)
                self.chunks.forget()
                self.dropped = True

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages from the broker's log, see `Log.receive`. Thread-safe."""
        with self.lock:
            received = self.history.receive(epoch, first, run)
            if received is Received.APPENDED:
                self.chunks.forget()
            return received

    def reset(self, epoch: str, first: int) -> None:
        """Drop all messages, before the broker's log is received. Thread-safe."""
        with self.lock:
            if epoch != self.history.epoch:
                self.sent = self.acknowledged = 0
            self.history.reset(epoch, first)
            self.chunks.forget()
            self.dropped = False

    def append(self, data: bytes) -> int:
        """Add a message. Thread-safe.

        Args:
            data: The value as JSON.

        Returns:
            The offset of the message.

        Raises:
            ChannelClosed: The feed has ended.
            ChannelFull: A message that was never sent would be displaced. The history is emptied,
                and the channel sends nothing more.
        """
        with self.lock:
            if self.closed is not None:
                raise self._refusal(self.closed)
            self.chunks.forget()
            if self.kind.may_fill and self.history.displaced_by(len(data)) > self.sent:
                self.closed = "full"
                self.history.drop_through(self.history.top)
                raise ChannelFull(self.name)
            return self.history.append(data)

    def check_open(self) -> None:
        """Check that messages can be added.

        Raises:
            ChannelClosed: The feed has ended.
            ChannelFull: The feed is full.
        """
        if self.closed is not None:
            raise self._refusal(self.closed)

    def _refusal(self, closed: str) -> ChannelClosed | ChannelFull:
        return ChannelFull(self.name) if closed == "full" else ChannelClosed(self.name, closed)

    def proves(self, start: Start) -> bool:
        """Return whether the messages held here suffice to locate a start position.

        If not, only the broker can locate the position: another worker may already have the message
        of an unknown position, or know an epoch that this worker does not know.
        """
        if self.local or not self.live:
            return self.local
        if isinstance(start, First):
            return self.kind.only_last or self.history.first == 1
        if isinstance(start, Last) and self.dropped:
            return start.count <= len(self.history)
        if not isinstance(start, Position):
            return True
        history = self.history
        with self.lock:
            first = 1 if self.kind.only_last else history.first
            return start.epoch == history.epoch and first - 1 <= start.offset <= history.top

    def locate(self, start: Start) -> int | None:
        """Return the offset after which a reader begins.

        Args:
            start: The start position that the client asked for.

        Returns:
            The offset, whether or not its message is still held. `None` if the position is of
            another epoch or beyond the top, or if the first message is no longer held.

        Source: docs/semantics.md#start-positions.
        """
        history = self.history
        with self.lock:
            if isinstance(start, Now):
                return history.top
            if isinstance(start, Last):
                return max(history.top - start.count, history.first - 1)
            if isinstance(start, First):
                return self._before_first()
            epoch, offset = start.epoch, start.offset
            if self.kind.only_last:
                return min(offset, history.top) if epoch == history.epoch else 0
            if start == NEXT_INCARNATION and self.kind.one_reader:
                return 0
            return offset if epoch == history.epoch and offset <= history.top else None

    def mark_sent(self, upto: int) -> None:
        """Mark messages up to an offset as sent: newer ones may displace them."""
        with self.lock:
            self.sent = max(self.sent, upto)
        if self.broker is not None:
            self.broker.mark_sent(self, upto)

    def drop_acknowledged(self, upto: int) -> None:
        """Drop the messages up to an offset: the only client that reads has acknowledged them."""
        with self.lock:
            self.sent = max(self.sent, upto)
            self.acknowledged = max(self.acknowledged, upto)
            if upto >= self.history.first:
                self.history.drop_through(upto)
                self.chunks.forget()

    def position(self, offset: int) -> Position:
        """Return the position of an offset in this incarnation."""
        return Position(self.history.epoch, offset)

    def render(self, encode: Encoder, after: int, max_bytes: int | None = None) -> Chunk | None:
        """Encode the messages after an offset, once for all listeners at that offset.

        Args:
            encode: Writes messages in the format of the transport.
            after: The last offset that the listener has.
            max_bytes: How many bytes to write at most, though at least one message; `None` is no
                limit.

        Returns:
            The encoded messages; `None` is a gap.
        """
        key = (encode, after, max_bytes)
        found = self.chunks.find(key)  # may lack a message that another thread publishes now
        if found is not None:
            return found
        history = self.history
        self.read_at = next(_reads)
        with self.lock:
            top = history.top
            if self.kind.only_last:
                after = max(after, top - 1)
            if max_bytes is None or after >= top - 1:
                run = history.after(after)
            else:
                around = encode.around_each(self.name, history.epoch, top)
                run = history.after(after, max_bytes + encode.gap, around)
        if run is None:
            return None
        # Without the lock: the application renders HTML, and may use the channel meanwhile.
        chunk = encode.render(self.name, history.epoch, run, max_bytes)
        if not run:
            chunk.upto = after
        with self.lock:
            if history.top == top:  # else it lacks newer messages
                self.chunks.keep(key, chunk)
        return chunk

    def read(self, after: int, upto: int) -> list[Message] | None:
        """Return the messages `after + 1 … upto`; only the newest message of a newest channel.

        Args:
            after: The offset before the first message.
            upto: The offset of the last message, which exists or existed.

        Returns:
            The messages; `None` if the first one is no longer held.
        """
        with self.lock:
            if self.kind.only_last:
                after, upto = self.history.top - 1, self.history.top
            run = self.history.after(after)
            return None if run is None else run[: upto - after]

    def _before_first(self) -> int | None:
        """Return the offset before the first message; `None` if that message is gone."""
        before = self.history.first - 1
        if self.kind.only_last:
            return before
        return before if before <= self.acknowledged else None
