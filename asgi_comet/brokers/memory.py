"""The broker of one worker: everything is in its own feeds, so there is nothing to carry."""

from __future__ import annotations

from asgi_comet.fanout import Fanout
from asgi_comet.feeds import Feed
from asgi_comet.messages import Message

from .base import Broker, Stored

__all__ = ["MemoryBroker"]


class MemoryBroker(Broker):
    """Keeps everything in the process: no worker knows of another.

    Args:
        fanout: Where messages are published.
    """

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout

    def append(self, feed: Feed, data: bytes) -> Stored:
        """Append to the feed, which is the channel."""
        return self._fanout.publish(feed, data)

    async def recover(self, feed: Feed, after: int, max_bytes: int) -> list[Message] | None:
        """Return `None`: what the feed does not hold is held nowhere."""
        return None

    async def find(self, name: str) -> Feed | None:
        """Return `None`: there is no other worker."""
        return None

    async def find_process(self, process: str) -> str | None:
        """Return `None`: there is no other worker."""
        return None

    def want(self, feed: Feed, offset: int) -> None:
        """Ask the source, which is here."""
        if feed.want is not None:
            feed.want(offset)
