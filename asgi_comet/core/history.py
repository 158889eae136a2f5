"""A bounded log of messages with positions: append, read after an offset, detect a gap.

Owns the rule that nothing is skipped silently: a read is a gapless run that begins right after
the asked offset, or a gap. Must not know channels, listeners, time or any framework.
Not thread-safe: the caller holds the lock of the channel.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import Enum

from asgi_comet.core.messages import Message
from asgi_comet.position import Position

__all__ = ["History", "Received", "check_count"]


def check_count(name: str, count: int) -> None:
    """Check an option that is a number of messages.

    Raises:
        TypeError: The number is not a whole one.
        ValueError: The number is less than 1.
    """
    expected = f"expected {name} to be a number of messages, at least 1, got {count!r:.80}"
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(expected)
    if count < 1:
        raise ValueError(expected)


class Received(Enum):
    """The result of offering messages to a history."""

    APPENDED = "appended"
    KNOWN = "known"  # the history has the messages already
    GAP = "gap"  # the history lacks earlier messages
    OTHER_EPOCH = "other epoch"


class History:
    """The messages that a channel still holds, with dense offsets from 1 on.

    Bounded by count and by bytes: the oldest messages are dropped first.

    Args:
        size: The maximal count of messages, at least 1.
        max_bytes: The maximal sum of the encoded messages, in bytes. A single message larger than
            this is held alone, until the next one comes.
        epoch: The incarnation of the channel; by default a fresh one.

    Source: docs/semantics.md#histories; the ring of `eliom_comet`, to which epochs are added.
    """

    __slots__ = ("_messages", "bytes", "epoch", "first", "max_bytes", "size", "top")

    def __init__(self, *, size: int, max_bytes: int, epoch: str | None = None) -> None:
        self.size: int = size
        self.max_bytes: int = max_bytes
        self.epoch: str = epoch if epoch is not None else secrets.token_urlsafe(6)
        self.first: int = 1  # the offset of the oldest message held, or else of the next one
        self.top: int = 0  # the offset of the newest message
        self.bytes: int = 0
        self._messages: dict[int, Message] = {}  # by offset, without holes, so both ends cost O(1)

    def __len__(self) -> int:
        return self.top - self.first + 1

    @property
    def max_age(self) -> float | None:
        """The maximal age of a message, in seconds; `None` is no bound."""
        return None

    def age(self, now: float) -> bool:
        """Drop the messages that are too old; none here, see `AgedHistory`."""
        del now
        return False

    @property
    def position(self) -> Position:
        """The position of the newest message."""
        return Position(self.epoch, self.top)

    def append(self, data: bytes) -> int:
        """Add a message and drop the oldest ones beyond the bounds.

        Args:
            data: The value as JSON.

        Returns:
            The offset of the message.
        """
        self._add(Message(self.top + 1, data))
        return self.top

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages whose offsets another history has assigned, in order, each once.

        Args:
            epoch: The epoch of the other history.
            first: The offset of the first message of the run.
            run: Messages with dense offsets from `first` on.
        """
        if epoch != self.epoch:
            return Received.OTHER_EPOCH
        if first > self.top + 1:
            return Received.GAP
        new = run[self.top + 1 - first :]
        for message in new:
            self._add(message)
        return Received.APPENDED if new else Received.KNOWN

    def reset(self, epoch: str, first: int) -> None:
        """Drop all messages, and continue at an offset.

        Args:
            epoch: The new epoch.
            first: The offset of the next message.
        """
        self.drop_through(self.top)
        self.epoch, self.first, self.top = epoch, first, first - 1

    def displaced_by(self, size: int) -> int:
        """Return the last message that a new message would displace.

        Args:
            size: The size of the new message, in bytes.

        Returns:
            The offset of the displaced message; less than `first` if none would be displaced.
        """
        left = self.bytes + size - self.max_bytes
        offset = self.first
        while left > 0 and offset <= self.top:
            left -= len(self._messages[offset].data)
            offset += 1
        return max(offset - 1, self.top + 1 - self.size)

    def after(
        self, offset: int, max_bytes: int | None = None, around: int = 0
    ) -> list[Message] | None:
        """Return the run of messages right after an offset.

        Args:
            offset: The last offset the reader has; 0 for none.
            max_bytes: The limit of the run in bytes; at least one message is returned if there is
                one. `None` is no limit.
            around: How many bytes to count for each message besides its data.

        Returns:
            The messages `offset + 1, offset + 2, …`, as many as there are or fit; empty if the
            reader has all messages. `None` is a gap: the next message is no longer held, or the
            offset is beyond the top and so not of this history.
        """
        if offset < self.first - 1 or offset > self.top:
            return None
        messages = self._messages
        if max_bytes is None:
            return [messages[n] for n in range(offset + 1, self.top + 1)]
        run: list[Message] = []
        left = max_bytes
        for n in range(offset + 1, self.top + 1):
            message = messages[n]
            left -= len(message.data) + around
            if left < 0 and run:
                break
            run.append(message)
        return run

    def _add(self, message: Message) -> None:
        self.top += 1
        self._messages[self.top] = message
        self.bytes += len(message.data)
        if self.top - self.first >= self.size or self.bytes > self.max_bytes:
            self._trim()

    def _trim(self) -> None:
        while len(self) > self.size or (self.bytes > self.max_bytes and len(self) > 1):
            self.bytes -= len(self._messages.pop(self.first).data)
            self.first += 1

    def drop_through(self, offset: int) -> None:
        """Drop the messages up to and including an offset, or up to the top if that is less."""
        for n in range(self.first, min(offset, self.top) + 1):
            self.bytes -= len(self._messages.pop(n).data)
            self.first = n + 1
