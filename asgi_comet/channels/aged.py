"""Feeds of channels with `max_age`.

Owns that no use of such a channel sees a message that is too old: each use first drops these, so
there is no timer for a channel or a message, and other channels pay nothing. Must not know names,
sources, identities, or the bytes that a transport sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.channels.feed import Chunk, Encoder, Feed, Names
from asgi_comet.channels.kind import Kind
from asgi_comet.core.aged import make_history
from asgi_comet.core.history import History, Received
from asgi_comet.core.messages import Message, Start

__all__ = ["AgedFeed", "make_feed"]


class AgedFeed(Feed):
    """A feed whose messages grow old; for the rest see `Feed`.

    Args:
        name: The channel's name as clients write it.
        kind: The kind of the channel.
        history: The messages.
        directory: The directory that holds the name.
        now: Returns the current time, in seconds. Thread-safe.
    """

    __slots__ = ("_now",)

    def __init__(
        self, name: str, kind: Kind, history: History, directory: Names, now: Callable[[], float]
    ) -> None:
        super().__init__(name, kind, history, directory)
        self._now = now

    @property
    def first(self) -> int:
        """The offset of the oldest message held, or of the next message if none is held."""
        self._age()
        return super().first

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages from the broker's log; messages without a time are of now."""
        self._age()
        return super().receive(epoch, first, run)

    def append(self, data: bytes) -> int:
        """Add a message of now."""
        self._age()
        return super().append(data)

    def proves(self, start: Start) -> bool:
        """Return whether the messages held here suffice to locate a start position."""
        self._age()
        return super().proves(start)

    def locate(self, start: Start) -> int | None:
        """Return the offset after which a reader begins."""
        self._age()
        return super().locate(start)

    def render(self, encode: Encoder, after: int, max_bytes: int | None = None) -> Chunk | None:
        """Encode the messages after an offset; `None` is a gap."""
        self._age()
        return super().render(encode, after, max_bytes)

    def read(self, after: int, upto: int) -> list[Message] | None:
        """Return the messages `after + 1 … upto`; `None` if the first one is no longer held."""
        self._age()
        return super().read(after, upto)

    def _age(self) -> None:
        with self.lock:
            if self.history.age(self._now()):
                self.chunks.forget()


def make_feed(
    spec: ChannelSpec, directory: Names, now: Callable[[], float], epoch: str | None = None
) -> Feed:
    """Make a feed, which drops the messages that are too old if there is such a bound.

    Args:
        spec: The properties of the channel.
        directory: The directory that holds the name.
        now: Returns the current time, in seconds. Thread-safe.
        epoch: The incarnation of the channel; by default a fresh one.
    """
    kind = Kind(spec.kind)
    size, max_bytes, max_age = spec.size, spec.max_bytes, spec.max_age
    history = make_history(size=size, max_bytes=max_bytes, max_age=max_age, epoch=epoch)
    if max_age is None:
        feed = Feed(spec.name, kind, history, directory)
    else:
        feed = AgedFeed(spec.name, kind, history, directory, now)
    feed.owner = spec.owner
    return feed
