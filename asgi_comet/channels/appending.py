"""Appending: a message on its way from the application, or a source, to the store.

Owns which store takes a message: the broker, a publisher, or, before the first lifespan, the broker
with a warning. Must not know how channels are made, nor what a message means.
"""

from __future__ import annotations

from functools import partial

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import Stored
from asgi_comet.brokers.unserved import Unserved
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.ending import Ending
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.publisher import Publisher
from asgi_comet.channels.sharing import Sharing
from asgi_comet.errors import ChannelClosed, ChannelFull, MessageTooLarge
from asgi_comet.settings import Settings

__all__ = ["Appending"]


class Appending:
    """The way of messages to the store. Thread-safe.

    Args:
        settings: The limit of a message, and whether an answer waits for what it has published.
        broker: Stores messages.
        fanout: Wakes the listeners of a channel that is full.
        runtime: Tells the time.
        sharing: Delays the answer to the current request.
        ending: Ends a channel that is full.

    Attributes:
        publisher: Stores messages while the process publishes and does not serve.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        fanout: Fanout,
        runtime: Runtime,
        sharing: Sharing,
        ending: Ending,
    ) -> None:
        self.publisher: Publisher | None = None
        self._settings = settings
        self._settles = broker.shared and settings.settle == "all"
        self._broker = broker
        self._unserved = Unserved(broker)
        self._store: Broker | Unserved = self._unserved  # until the first lifespan
        self._fanout = fanout
        self._runtime = runtime
        self._sharing = sharing
        self._ending = ending

    @property
    def unserved(self) -> bool:
        """Whether no client gets a message until a lifespan starts."""
        return self._store is self._unserved and self.publisher is None

    def begin(self) -> None:
        """Serve what is published from now on: the lifespan starts."""
        self._unserved.serve()
        self._store = self._broker

    def forked(self) -> None:
        """Publish where no server runs: the parent process of this one serves."""
        self._store = self._unserved

    def note_unserved(self) -> None:
        """Count a notification, if no client gets it until a lifespan starts."""
        if self.unserved:
            self._unserved.note()

    def publish(self, feed: Feed, data: bytes, id_: str | None = None) -> Delivery:
        """Publish encoded data on a feed, see `Channel.publish`."""
        if id_ is not None:
            feed.check_open()  # a broker may find the id first
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        stored = self.append(feed, data, id_)
        delivery = Delivery(self._runtime, feed, stored, self._settings.timeout)
        if self._settles:
            self._sharing.settle(partial(_wait_stored, delivery))
        return delivery

    def append_value(self, feed: Feed, data: bytes) -> Stored:
        """Append an encoded value of a channel's source."""
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        return self.append(feed, data, sourced=True)

    def append(
        self, feed: Feed, data: bytes, id_: str | None = None, *, sourced: bool = False
    ) -> Stored:
        """Append encoded data to a feed, without an outcome to await. Thread-safe.

        Args:
            feed: The feed.
            data: The value as JSON.
            id_: A second message with the same id is not stored, see `Channel.publish`.
            sourced: Whether the value is of the channel's source.

        Raises:
            ChannelClosed: The channel has ended.
            ChannelFull: The channel is full, so it ends.
        """
        try:
            if feed.closing is not None:
                feed.check_open()
                raise ChannelClosed(feed.name, feed.closing)
            if sourced:
                stored = self._broker.append(feed, data, sourced=True)
            else:
                stored = (self.publisher or self._store).append(feed, data, id=id_)
        except ChannelFull:
            self._fanout.mark(feed)  # so that the server tells its reader
            self._ending.end(feed, "full")
            raise
        feed.counters.publish(len(data))
        return stored


async def _wait_stored(delivery: Delivery) -> None:
    await delivery.stored()
