"""The published messages, as the test kit has seen them.

Owns nothing of the application: the ledger looks on where channels are made and messages stored.
Must not know readers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from asgi_comet.brokers.logs import ChannelSpec, Log, Stored
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.feed import Feed
from asgi_comet.comet import Comet
from asgi_comet.core.history import History
from asgi_comet.position import Position
from asgi_comet.testing._inspect import Told, WatchedDelivery, inside, owner_of
from asgi_comet.testing.clock import moment
from asgi_comet.testing.joined import JoinedBroker
from asgi_comet.testing.store import Record, Store, key_of

__all__ = ["Kept", "Key", "Ledger", "Published"]


class Key(NamedTuple):
    """A channel.

    Attributes:
        owner: The client process that it belongs to; empty for one of the site.
        name: The name.
    """

    owner: str
    name: str


class Published(NamedTuple):
    """A message.

    Attributes:
        data: The value as JSON.
        moment: When it was stored, see `clock.moment`.
    """

    data: bytes
    moment: int


class Kept(Protocol):
    """The state of a channel on the server: a feed, or a log that workers share.

    Attributes:
        history: The messages that are still held.
        closed: The reason why the channel has ended.
        acknowledged: How far the only client has acknowledged.
    """

    history: History
    closed: str | None
    acknowledged: int

    @property
    def spec(self) -> ChannelSpec:
        """The properties of the channel."""


class Ledger:
    """The messages by channel, and the faults that were seen when messages were stored.

    Attributes:
        kept: The newest incarnation of each channel, as the server keeps it.
        told: The outcomes that the application has waited for.
        wrong: The faults, as text.
    """

    def __init__(self) -> None:
        self.kept: dict[Key, Kept] = {}
        self.told: list[Told] = []
        self.wrong: list[str] = []
        self._messages: dict[Key, dict[Position, Published]] = {}
        self._lock = threading.Lock()
        self._stores: list[Store] = []

    def messages(self, key: Key) -> dict[Position, Published]:
        """Return the messages of a channel by position, in the order in which they came."""
        return self._messages.get(key, {})

    def named(self, name: str) -> list[bytes]:
        """Return the messages of all channels of a name."""
        found = [of for key, of in self._messages.items() if key.name == name]
        return [one.data for messages in found for one in messages.values()]

    def watch(self, comet: Comet) -> None:
        """Look on where a `Comet` publishes."""
        node = inside(comet)
        channels: Any = node.channels
        publish = node.channels.appending.publish
        channels.appending.publish = self._watched_publish(publish, lambda: node.drain.begun)
        broker: Any = node.broker
        if isinstance(broker, JoinedBroker):
            self._watch_store(broker.store)
            broker.append = self._watched_owner(broker)  # type: ignore[method-assign] # looks on
            return
        for feed in node.channels.site.directory.feeds():
            self._note_feed(feed)
            for message in feed.read(feed.first - 1, feed.top) or ():  # published before
                position = feed.position(message.offset)
                self._note(Key("", feed.name), position, message.data, again=True)
        channels.make_feed = self._watched_making(node.channels.make_feed)
        channels.renew = self._watched_making(node.channels.renew)
        broker.append = self._watched_append(node.broker.append)

    def leave(self, comet: Comet) -> None:
        """Look on no more: an application may run in many tests, each with a ledger."""
        node = inside(comet)
        for part, name in [
            (node.channels, "publish"),
            (node.channels, "make_feed"),
            (node.channels, "renew"),
            (node.broker, "append"),
        ]:
            vars(part).pop(name, None)

    # With one worker

    def _note_feed(self, feed: Feed) -> None:
        self.kept[Key(owner_of(feed), feed.name)] = feed

    def _watched_making(self, inner: Callable[..., Feed]) -> Callable[..., Feed]:
        def make(*args: Any, **options: Any) -> Feed:
            feed = inner(*args, **options)
            self._note_feed(feed)
            return feed

        return make

    def _watched_append(self, inner: Callable[..., Stored]) -> Callable[..., Stored]:
        def append(log: Feed, data: bytes, **options: Any) -> Stored:
            stored = inner(log, data, **options)
            assert isinstance(stored, int)  # noqa: S101 - the broker in memory stores at once
            key, again = Key(owner_of(log), log.name), options.get("id") is not None
            self._note(key, Position(log.epoch, stored), data, again=again)
            return stored

        return append

    # With several

    def _watch_store(self, store: Store) -> None:
        """Look on where several workers store their messages."""
        if store in self._stores:
            return
        self._stores.append(store)
        anything: Any = store
        anything.append = self._watched_store(store.append)
        anything.open = self._watched_opening(store.open)

    def _watched_store(self, inner: Callable[..., Position]) -> Callable[..., Position]:
        def append(record: Record, data: bytes, id_: str | None, now: float) -> Position:
            position = inner(record, data, id_, now)
            self._note(_key_of(record), position, data, again=id_ is not None)
            return position

        return append

    def _watched_opening(self, inner: Callable[..., Record]) -> Callable[..., Record]:
        def open_(*args: Any, **options: Any) -> Record:
            record = inner(*args, **options)
            self.kept[_key_of(record)] = record
            return record

        return open_

    def _watched_owner(self, broker: JoinedBroker) -> Callable[..., Stored]:
        inner = broker.append

        def append(log: Log, data: bytes, *, sourced: bool = False, **options: Any) -> Stored:
            stored = inner(log, data, sourced=sourced, **options)
            if sourced and broker.store.owner(key_of(log)) is not broker:
                self.wrong.append(
                    f"a worker that may not read the source of {log.name!r} any more has stored "
                    f"{data!r:.80}"
                )
            return stored

        return append

    # With any number

    def _watched_publish(
        self, inner: Callable[..., Delivery], stops: Callable[[], bool]
    ) -> Callable[..., Delivery]:
        def publish(feed: Feed, *args: Any) -> Delivery:
            return WatchedDelivery(inner(feed, *args), self.told.append, stops)

        return publish

    def _note(self, key: Key, position: Position, data: bytes, *, again: bool) -> None:
        with self._lock:
            known = self._messages.setdefault(key, {})
            if position in known and not again:
                self.wrong.append(
                    f"position {position} of {key.name!r} stands for two messages: "
                    f"{known[position].data!r:.80} and {data!r:.80}"
                )
            known.setdefault(position, Published(data, moment()))


def _key_of(record: Record) -> Key:
    return Key(record.spec.owner or "", record.spec.name)
