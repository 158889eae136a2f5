"""Channel and ExternalChannel: the objects by which the application uses a channel.

Owns nothing: a `Channel` is a feed and the means to publish on it. Must not know transports,
requests, sessions or the wire.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from asgi_comet.brokers.ids import check_id
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.directory import Place
from asgi_comet.channels.encoding import Encode
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.reference import Referring
from asgi_comet.channels.registry import Registry
from asgi_comet.channels.scope import Owner, Scope
from asgi_comet.core.messages import NEXT_INCARNATION, Last, Now, parse_relative
from asgi_comet.errors import ChannelClosed

__all__ = ["Channel", "ExternalChannel"]

T = TypeVar("T")


class Channel(Referring, Generic[T]):
    """A named, ordered stream of messages from the server to its clients. Made by `create`.

    An unnamed channel lives as long as the application keeps this object, or a client listens.
    Thread-safe.
    """

    __slots__ = ("__weakref__", "_encode", "_newest", "_place", "_registry", "name")

    def __init__(
        self, registry: Registry, feed: Feed, place: Place, name: str | None, encode: Encode
    ) -> None:
        self.name: str | None = name  # as declared; `None` for an unnamed channel
        self._registry = registry
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

        Identifiers of a client process's channels begin with `~`.
        """
        return self._feed.name

    @property
    def scope(self) -> Scope | Owner:
        """The audience: `SITE`, or the `ClientProcess` that the channel belongs to."""
        return self._place.scope

    @property
    def kind(self) -> str:
        """The kind of channel: `"site"`, `"process"`, `"newest"` or `"unlimited"`."""
        name: str = self._feed.kind.value
        return name

    @property
    def size(self) -> int:
        """How many messages the channel holds at most: 1 for newest, `ahead` for on demand."""
        return self._feed.history.size

    @property
    def listeners(self) -> int:
        """How many client connections are open on the channel now, as far as the server knows.

        A client that vanished without closing counts until its connection breaks. The outcome of a
        write is more exact.
        """
        return len(self._feed.listeners)

    async def ready(self) -> None:
        """Return once all workers know the channel; at once without a broker.

        Raises:
            BrokerUnavailable: It takes too long; it goes on.
            CometError: The channel could not be made.
            NotRunning: There is a broker, and the lifespan does not run.
        """
        await self._registry.sharing.ready(self._feed)

    async def count(self) -> int:
        """Return how many client connections are open on the channel in all workers.

        Workers that do not answer within two seconds are left out.

        Raises:
            BrokerUnavailable: The other workers cannot be reached.
            NotRunning: There is a broker, and the lifespan does not run.
        """
        return await self._registry.sharing.count(self._feed)

    def publish(
        self,
        value: T,
        *,
        id: str | None = None,  # noqa: A002 - the word for it in task queues
    ) -> Delivery:
        """Send a value to all listeners, and keep it in the history.

        Values published by one caller arrive in the order of publishing. Thread-safe; never waits.

        Args:
            value: The value to send.
            id: Names the message, in 1 to 200 characters, for a program that may publish it twice.
                The same id on the channel within ten minutes is the same message: the value is not
                published again, and the delivery is that of the first message. A channel remembers
                the last 10,000 ids. `None` publishes in any case.

        Returns:
            The delivery: `await` it for the outcome, or drop it.

        Raises:
            InvalidMessage: The value does not fit the channel's type, or has no JSON form.
            MessageTooLarge: The value has more than `Settings.message_limit` bytes as JSON.
            ChannelClosed: The channel has ended.
            ChannelFull: The client process does not read, and the history is full of unsent
                messages.
            TypeError: The channel reads its source on demand, so only the source may publish; or
                `id` is not text.
            ValueError: `id` is empty or too long.
        """
        if id is not None:
            check_id(id)
        if self._feed.kind.on_demand:
            raise TypeError(
                f"expected a channel that may be published on, got {self.id!r}, which reads its "
                "source as its client asks"
            )
        data = self._encode(self._feed.name, value)
        while True:
            feed = self._feed
            self._registry.touch(feed)
            try:
                return self._registry.appending.publish(feed, data, id)
            except ChannelClosed:
                if feed.successor is None:  # else the channel was restarted at this moment
                    raise

    write = publish
    """`publish` under its name in `Ocsigen_comet.Channels`."""

    def reference(self, start: str | None = None) -> dict[str, str]:
        """Return where a client subscribes and from which position, so that no message is lost.

        A channel of a client process that workers share has an exact position only in the worker
        that the client reads at. In any other worker the position is `new.0` for every `start`:
        before the first message that the client has not acknowledged. So the client misses no
        message, but may get a message again that it has not acknowledged.

        Args:
            start: `"now"` is the end of the history. `"last:N"` is before the last N messages that
                are held. `"first"` is before the first message of a site channel, before the last
                message of a newest channel, and before the first unacknowledged message of a client
                process; the client is told `full` if that message is no longer held. `None` is the
                end of a site channel, and before the first held message of any other channel.

        Returns:
            `{"url": "/comet/p/TOKEN", "channel": "~inbox", "position": "k3x9Qp.0"}`, for JSON.
            In a request the URL includes the application's `root_path`.

        Raises:
            BrokerUnavailable: In a worker thread: other workers may have the member of a family,
                and the broker does not tell.
            MustAwait: In an event loop: the same; write `await channel.ready()` before it.
            ValueError: `start` is none of these.
        """
        self._registry.require_position(self._feed)
        feed = self._feed
        if start is not None:
            place = parse_relative(start)
        else:
            kind = feed.kind
            every = kind.only_last or kind.one_reader
            place = Last(feed.history.size) if every else Now()
        self._registry.touch(feed)
        with feed.lock:
            feed.uses += 1
        if feed.owner is not None and not feed.live:
            here = NEXT_INCARNATION
            return {"url": self._place.url(), "channel": feed.name, "position": str(here)}
        offset = feed.locate(place)
        # If the first message is gone, the position before it makes the server answer `full`.
        position = str(feed.position(feed.acknowledged if offset is None else offset))
        return {"url": self._place.url(), "channel": feed.name, "position": position}

    def close(self) -> None:
        """End the channel: listeners get the remaining messages and `closed`.

        Idempotent, thread-safe.

        The name is free at once; the messages can be read for another `Settings.linger` seconds.
        """
        feed = self._feed
        self._registry.ending.end(feed, "ended")
        if feed.successor is not None:  # the channel was restarted at this moment
            self.close()


class ExternalChannel(Referring):
    """A channel of another server. Clients connect to that server.

    Attributes:
        prefix: The URL where the comet of that server is mounted.
        name: The name of the channel on that server.
        start: The start position of clients: `last:N`.
    """

    __slots__ = ("name", "prefix", "start")

    def __init__(self, prefix: str, name: str, start: str) -> None:
        self.prefix: str = prefix
        self.name: str = name
        self.start: str = start

    def __repr__(self) -> str:
        return f"<ExternalChannel {self.prefix!r} {self.name!r} {self.start}>"

    def reference(self) -> dict[str, str]:
        """Return where a client subscribes, as `Channel.reference` does."""
        return {"url": self.prefix, "channel": self.name, "position": self.start}
