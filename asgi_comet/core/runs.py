"""Runs of messages, encoded for a transport: as many whole messages as fit.

Owns how the size of a run is measured: in encoded bytes, with the name, the position and everything
else around each message. Must not know formats, channels or connections.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from asgi_comet.core.messages import Message

__all__ = ["Chunk", "Encoder"]


class Chunk:
    """An encoded run of messages, shared by all listeners at the same place.

    Attributes:
        data: Bytes or text.
        size: The size in an answer or a write, in bytes.
        upto: The offset of the last message.
        count: How many messages there are.
        message: The ASGI message with `data`, set by the first stream that sends it.
        taken: Whether the server has taken the run for a stream.
    """

    __slots__ = ("count", "data", "message", "size", "taken", "upto")

    def __init__(self, data: Any, size: int, upto: int, count: int) -> None:
        self.count: int = count
        self.data: Any = data
        self.size: int = size
        self.upto: int = upto
        self.message: Any = None
        self.taken: bool = False


class Encoder:
    """The encoder of a transport for the messages of a channel. Compared by identity.

    Args:
        write: Encodes messages, given the channel's name and epoch; returns one item for each.
        join: Joins encoded messages to the data that the transport sends.
        gap: How many bytes separate two messages.
        around: How many bytes surround all messages.

    Attributes:
        gap: How many bytes separate two messages.
        shared: The encoder of the part that all listeners at the same place share; `end` does the
            rest. By default this encoder itself.
    """

    __slots__ = ("_around", "_join", "_write", "gap", "shared")

    def __init__(
        self,
        write: Callable[[str, str, Sequence[Message]], list[bytes]],
        join: Callable[[list[bytes]], Any],
        *,
        gap: int = 0,
        around: int = 0,
    ) -> None:
        self._write = write
        self._join = join
        self.gap: int = gap
        self._around = around
        self.shared: Encoder = self

    def __call__(self, name: str, epoch: str, messages: Sequence[Message]) -> Any:
        """Encode all messages of a run.

        Args:
            name: The channel.
            epoch: The incarnation of the channel.
            messages: The messages, in order.
        """
        return self.end(self.shared.render(name, epoch, messages), epoch, sys.maxsize)[0]

    def around_each(self, name: str, epoch: str, offset: int) -> int:
        """Return how many bytes surround the data of a message, including a gap.

        Args:
            name: The channel.
            epoch: The incarnation of the channel.
            offset: The offset of the message.
        """
        return len(self._write(name, epoch, (Message(offset, b""),))[0]) + self.gap

    def render(
        self, name: str, epoch: str, messages: Sequence[Message], max_bytes: int | None = None
    ) -> Chunk:
        """Encode as many messages of a run as fit.

        Args:
            name: The channel.
            epoch: The incarnation of the channel.
            messages: The messages, in order.
            max_bytes: The limit in bytes; the first message is encoded in any case. `None` is no
                limit.
        """
        parts, gap = self._write(name, epoch, messages), self.gap
        if len(parts) == 1:  # the usual case
            size = len(parts[0]) + self._around
            return Chunk(self._join(parts), size, messages[0].offset, 1)
        size = sum(map(len, parts)) + gap * len(parts) + self._around - gap
        if max_bytes is not None:
            while size > max_bytes and len(parts) > 1:
                size -= len(parts.pop()) + gap
        upto = messages[len(parts) - 1].offset if parts else 0
        return Chunk(self._join(parts), size, upto, len(parts))

    def end(self, begun: Chunk, epoch: str, max_bytes: int) -> tuple[Any, int, Chunk]:
        """Encode the part of a run that is not shared.

        Args:
            begun: The run encoded by `shared`.
            epoch: The incarnation of the channel.
            max_bytes: The limit in bytes; the first message is encoded in any case. A run that is
                shared as a whole is not cut.

        Returns:
            The data to send, its size in bytes, and the run it holds: `begun`, if complete.
        """
        return begun.data, begun.size, begun
