"""A bounded log of messages with positions: append, read after an offset, tell a gap.

Owns the rule that nothing is skipped silently: a read is a gapless run that begins right after
the asked offset, or a gap. Must not know channels, listeners, time or any framework.
Not thread-safe: the caller holds the lock of the channel.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import Enum

from asgi_comet.core.messages import Message, Position

__all__ = ["History", "Received"]


class Received(Enum):
    """What became of messages that were offered to a history."""

    APPENDED = "appended"
    KNOWN = "known"  # it has them already
    GAP = "gap"  # it does not have the messages before them
    OTHER_EPOCH = "other epoch"


class History:
    """The messages that a channel still holds, with dense offsets from 1 on.

    Bounded by count and by bytes: the oldest messages go first.

    Args:
        size: The greatest number of messages held, at least 1.
        max_bytes: The greatest sum of their encoded sizes, in bytes. A single message larger than
            this is held alone, until the next one comes.
        epoch: Which incarnation of the channel this is; by default a fresh one.

    Source: docs/semantics.md#histories; the ring of `eliom_comet`, to which epochs are added.
    """

    __slots__ = ("_messages", "bytes", "epoch", "first", "max_bytes", "size", "top")

    def __init__(self, *, size: int, max_bytes: int, epoch: str | None = None) -> None:
        self.size: int = size
        self.max_bytes: int = max_bytes
        self.epoch: str = epoch if epoch is not None else secrets.token_urlsafe(6)
        self.first: int = 1  # the offset of the oldest message held, or of the next to come
        self.top: int = 0  # the offset of the newest message
        self.bytes: int = 0
        self._messages: dict[int, Message] = {}  # by offset: dense, so both ends cost O(1)

    def __len__(self) -> int:
        return self.top - self.first + 1

    @property
    def position(self) -> Position:
        """Where the history ends now."""
        return Position(self.epoch, self.top)

    def append(self, data: bytes) -> int:
        """Add a message and drop the oldest ones beyond the bounds.

        Args:
            data: The value as JSON.

        Returns:
            Its offset.
        """
        self._add(Message(self.top + 1, data))
        return self.top

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages that another history has given their offsets, in order, each once.

        Args:
            epoch: The epoch of that history.
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
        """Forget all messages, and begin with an offset.

        Args:
            epoch: The epoch from now on.
            first: The offset of the next message.
        """
        self.drop_through(self.top)
        self.epoch, self.first, self.top = epoch, first, first - 1

    def displaced_by(self, size: int) -> int:
        """Tell which message would be the last to go for one of that many bytes.

        Args:
            size: The size of a message to come.

        Returns:
            Its offset, or one below `first` if none would have to go.
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
        """Read the run that begins right after an offset.

        Args:
            offset: The last offset the reader has; 0 for none.
            max_bytes: How many bytes the run may have; it has at least one message if there is one.
                `None` means no limit.
            around: How many bytes are reckoned for each message besides its data.

        Returns:
            The messages `offset + 1, offset + 2, …`, as many as there are or fit; empty when the
            reader has them all. `None` is a gap: the next message is no longer held, or the
            offset is beyond the top, so it cannot be of this history.
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
        while len(self) > self.size or (self.bytes > self.max_bytes and len(self) > 1):
            self.drop_through(self.first)

    def drop_through(self, offset: int) -> None:
        """Forget the messages up to and with an offset; those beyond the top do not exist."""
        for n in range(self.first, min(offset, self.top) + 1):
            self.bytes -= len(self._messages.pop(n).data)
            self.first = n + 1
