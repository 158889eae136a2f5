"""The interface between the channels of one worker and all others'.

A worker reads and writes its own feeds; a broker makes feeds of the same name in several workers
one channel. It is cut so that the memory path pays nothing:

- A feed's history is a window of the newest messages. In memory it is all there is; a broker with
  a history of its own fills the window as messages come (`Fanout.received`) and is asked only for
  what the window no longer holds.
- `append` is atomic and tells the position, at once or later.
- A name that no channel of this worker has is asked for once, when somebody subscribes.
- A source is read where it was created: a reader elsewhere asks for the next message by `want`.
- A client process is known to the worker that opened it, and to others by its record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from asgi_comet.feeds import Feed
from asgi_comet.messages import Message

__all__ = ["Broker", "Stored"]

Stored = int | Callable[[], Awaitable[int]]
"""The offset of a message that is stored, or a function that waits until it is."""


class Broker(ABC):
    """Carries messages and histories between workers."""

    @abstractmethod
    def append(self, feed: Feed, data: bytes) -> Stored:
        """Append a message to a channel, for all workers. Thread-safe; never waits.

        Messages of one caller are stored in the order of its calls, with dense offsets.

        Args:
            feed: The channel here.
            data: The value as JSON.

        Returns:
            Its offset, or how to wait for it.

        Raises:
            ChannelClosed: The channel has ended.
            ChannelFull: It is full.
        """

    @abstractmethod
    async def recover(self, feed: Feed, after: int, max_bytes: int) -> list[Message] | None:
        """Read what this worker's window of a channel no longer holds.

        Args:
            feed: The channel here.
            after: The last offset the reader has.
            max_bytes: How many bytes of data to read, one message at least.

        Returns:
            The gapless run that begins right after it; `None` if its first message is held nowhere.
        """

    @abstractmethod
    async def find(self, name: str) -> Feed | None:
        """Return a feed for a site channel of another worker; `None` if there is none."""

    @abstractmethod
    async def find_process(self, process: str) -> str | None:
        """Return the session of a client process that another worker opened; `None` if none did."""

    @abstractmethod
    def want(self, feed: Feed, offset: int) -> None:
        """Tell the owner of an on-demand source that a reader asks for a message."""
