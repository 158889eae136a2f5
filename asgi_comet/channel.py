"""Channel and ExternalChannel: what the application holds of a channel.

Owns nothing: a `Channel` is a feed and what it takes to publish on it. Must not know transports,
requests, sessions or the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .delivery import Delivery
from .directory import Place
from .encoding import Encode
from .errors import ChannelClosed
from .feeds import Feed, Kind
from .references import Referring

if TYPE_CHECKING:
    from .channels import Channels

__all__ = ["Channel", "ExternalChannel"]

T = TypeVar("T")


class Channel(Referring, Generic[T]):
    """A named, ordered stream of messages from the server to its clients. Made by `create`.

    An unnamed site channel lives as long as somebody keeps this object, or listens. Thread-safe.
    """

    __slots__ = ("__weakref__", "_channels", "_encode", "_newest", "_place", "name")

    def __init__(
        self, channels: Channels, feed: Feed, place: Place, name: str | None, encode: Encode
    ) -> None:
        self.name: str | None = name  # as declared; None for one that was given an identifier only
        self._channels = channels
        self._newest = feed
        self._place = place
        self._encode = encode

    def __repr__(self) -> str:
        closed = self._feed.closed
        state = f"listeners={self.listeners}" if closed is None else closed
        return f"<Channel {self.id!r} {state}>"

    @property
    def _feed(self) -> Feed:
        self._newest = feed = self._newest.latest
        return feed

    @property
    def id(self) -> str:
        """The identifier that clients subscribe to: the name, or 144 random bits.

        Those of a client process begin with `~`.
        """
        return self._feed.name

    @property
    def listeners(self) -> int:
        """How many client connections are open on the channel right now, as the server knows.

        A client that vanished without a word still counts until its connection breaks; the
        outcome of a write tells.
        """
        return len(self._feed.listeners)

    def publish(self, value: T) -> Delivery:
        """Send a value to everyone who listens, and keep it in the history.

        Values published by one caller arrive in that order. Thread-safe; never waits.

        Args:
            value: What to send.

        Returns:
            The delivery: `await` it for the outcome, or drop it.

        Raises:
            InvalidMessage: The value does not fit the channel's type, or has no JSON form.
            MessageTooLarge: It is over `Settings.message_limit` bytes as JSON.
            ChannelClosed: The channel has ended.
            ChannelFull: It belongs to a client process that did not ask for what it holds.
            TypeError: It reads its source on demand, so nothing else may come between.
        """
        if self._feed.kind is Kind.UNLIMITED:
            raise TypeError(
                f"expected a channel that may be published on, got {self.id!r}, which reads its "
                "source as its client asks"
            )
        data = self._encode(self._feed.name, value)
        while True:
            feed = self._feed
            try:
                return self._channels.publish(feed, data)
            except ChannelClosed:
                if feed.successor is None:  # else it was started again in this very moment
                    raise

    write = publish
    """`publish` by the name it has in `Ocsigen_comet.Channels`."""

    def reference(self) -> dict[str, str]:
        """Tell a client where to subscribe and from which position: nothing is lost in between.

        Returns:
            `{"url": "/comet/p/TOKEN", "channel": "~inbox", "position": "k3x9Qp.0"}`, for JSON.
            In a request the URL includes the application's `root_path`. The position is the end of
            a site channel's history, the place before the last message of a newest one, and the
            first message that a client process has not acknowledged.
        """
        feed = self._feed
        with feed.lock:
            feed.visits += 1
            history = feed.history
            first = history.first - 1
            offset = {Kind.SITE: history.top, Kind.NEWEST: first}.get(feed.kind, first)
        position = str(feed.position(offset))
        return {"url": self._place.url(), "channel": feed.name, "position": position}

    def close(self) -> None:
        """End the channel: listeners get what remains and are told. Idempotent, thread-safe.

        Its name is free at once; what it holds can be read for another `Settings.linger` seconds.
        """
        feed = self._feed
        self._channels.end(feed, "ended")
        if feed.successor is not None:  # it was started again in this very moment
            self.close()


class ExternalChannel(Referring):
    """A channel of another server, which clients connect to there.

    Attributes:
        prefix: The URL where that server's comet is mounted.
        name: The channel's name there.
        start: Where clients begin: `last:N`.
    """

    __slots__ = ("name", "prefix", "start")

    def __init__(self, prefix: str, name: str, start: str) -> None:
        self.prefix: str = prefix
        self.name: str = name
        self.start: str = start

    def __repr__(self) -> str:
        return f"<ExternalChannel {self.prefix!r} {self.name!r} {self.start}>"

    def reference(self) -> dict[str, str]:
        """Tell a client where to subscribe, as `Channel.reference` does."""
        return {"url": self.prefix, "channel": self.name, "position": self.start}
