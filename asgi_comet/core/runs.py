"""A run of messages as a transport writes it: as many whole messages as fit.

Owns how the size of a run is measured: in the bytes that are written, with the name, the position
and everything else around each message. Must not know formats, channels or connections.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from asgi_comet.core.messages import Message

__all__ = ["Encoder", "Rendered"]


class Rendered:
    """A run of messages as a transport writes it, shared by all listeners at the same place.

    Attributes:
        data: Bytes or text.
        size: How many bytes of an answer or a write it takes.
        upto: The offset it reaches to.
        message: The same as the transport says it to the server, once it was sent.
        handed: Whether a server has taken it for a client that need not acknowledge it.
    """

    __slots__ = ("data", "handed", "message", "size", "upto")

    def __init__(self, data: Any, size: int, upto: int) -> None:
        self.data: Any = data
        self.size: int = size
        self.upto: int = upto
        self.message: Any = None
        self.handed: bool = False


class Encoder:
    """How a transport writes the messages of a channel. Encoders are equal if they are the same.

    Args:
        write: Takes the channel's name, its epoch and messages; returns each of them as written.
        join: Makes of written messages what the transport sends.
        gap: How many bytes there are between two messages.
        around: How many bytes there are around all of them.

    Attributes:
        gap: The same.
        shared: Writes what all listeners at the same place on the channel share; `end` does the
            rest. By default that is all.
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
        """Write all messages of a run.

        Args:
            name: The channel.
            epoch: Its incarnation.
            messages: In order.
        """
        return self.end(self.shared.render(name, epoch, messages), epoch, sys.maxsize)[0]

    def around_each(self, name: str, epoch: str, offset: int) -> int:
        """Return how many bytes there are around the data of a message, a gap included.

        Args:
            name: The channel.
            epoch: Its incarnation.
            offset: The message's.
        """
        return len(self._write(name, epoch, (Message(offset, b""),))[0]) + self.gap

    def render(
        self, name: str, epoch: str, messages: Sequence[Message], max_bytes: int | None = None
    ) -> Rendered:
        """Write as many messages of a run as fit.

        Args:
            name: The channel.
            epoch: Its incarnation.
            messages: In order.
            max_bytes: How many bytes may be written; the first message is written in any case.
                `None` means no limit.
        """
        parts, gap = self._write(name, epoch, messages), self.gap
        if len(parts) == 1:  # as it comes, mostly
            size = len(parts[0]) + self._around
            return Rendered(self._join(parts), size, messages[0].offset)
        size = sum(map(len, parts)) + gap * len(parts) + self._around - gap
        if max_bytes is not None:
            while size > max_bytes and len(parts) > 1:
                size -= len(parts.pop()) + gap
        upto = messages[len(parts) - 1].offset if parts else 0
        return Rendered(self._join(parts), size, upto)

    def end(self, begun: Rendered, epoch: str, max_bytes: int) -> tuple[Any, int, Rendered]:
        """Write of a run what is not shared.

        Args:
            begun: What `shared` wrote.
            epoch: The channel's incarnation.
            max_bytes: How many bytes may be written; the first message is written in any case.
                What is shared as a whole is not cut.

        Returns:
            What the transport sends, how many bytes it takes, and how far it reaches: `begun`, if
            that is all of it.
        """
        return begun.data, begun.size, begun
