"""The registry of all channels: makes, counts, publishes on and ends their feeds.

Owns how many channels live, when an unused channel is reclaimed, and when an ended one is
forgotten. Must not know transports, requests, sessions or the wire.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timeout
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import ChannelSpec, Stored
from asgi_comet.brokers.people import Limits
from asgi_comet.brokers.unserved import Unserved
from asgi_comet.channels.aged import make_feed
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.directory import Place
from asgi_comet.channels.dropped import Dropped
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.guards import UNNAMED, NamedGuards
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.options import Options
from asgi_comet.channels.publisher import Publisher
from asgi_comet.channels.reserved import Reserved
from asgi_comet.channels.sharing import Sharing
from asgi_comet.channels.source import Demand
from asgi_comet.core.names import check_name, fresh_name
from asgi_comet.errors import (
    ChannelClosed,
    ChannelFull,
    CometError,
    MessageTooLarge,
    NonUniqueChannelName,
    TooManyFamilyChannels,
    TooManyVirtualChannels,
)
from asgi_comet.settings import Settings

__all__ = ["Registry"]

Store = Broker | Unserved | Publisher

ASKED = 2.0  # seconds that other workers have for an answer

_logger = logging.getLogger(__name__)


class Registry:
    """The feeds of all channels. Thread-safe.

    Args:
        settings: Limits, and how long an unused channel lingers.
        site: The place of site channels.
        broker: Stores messages.
        fanout: Wakes listeners when a channel ends.
        runtime: Runs sources and deadlines.

    Attributes:
        reserved: The declared names.
        guards: The rules that have a name.
        restarts: How often sources of declared channels were restarted.
        dropped: The channels that the application has dropped.
        sharing: The channels that other workers have, too.
        publisher: Stores messages while the process publishes and does not serve.
    """

    def __init__(
        self,
        settings: Settings,
        site: Place,
        *,
        broker: Broker,
        fanout: Fanout,
        runtime: Runtime,
    ) -> None:
        self.site: Place = site
        self.reserved: Reserved = Reserved()
        self.guards: NamedGuards = NamedGuards()
        self.restarts: int = 0
        self.publisher: Publisher | None = None
        self._settings = settings
        self._settles = broker.shared and settings.settle == "all"
        self._broker = broker
        self._unserved = Unserved(broker)
        self._store: Store = self._unserved  # until the first lifespan
        self._aside: tuple[bool, Store, frozenset[Feed]]  # while the process only publishes
        self._fanout = fanout
        self._runtime = runtime
        self.dropped: Dropped = Dropped(runtime, settings.linger, self.end_unused)
        self.sharing: Sharing = Sharing(broker, runtime.background, self._lose)
        self._lock = site.directory.lock
        self._live = 0
        self._stopping = False
        self._sources: WeakValueDictionary[int, AsyncIterator[Any]] = WeakValueDictionary()

    @property
    def heartbeat(self) -> float:
        """See `Settings.heartbeat`."""
        return self._settings.heartbeat

    @property
    def limits(self) -> Limits:
        """The bounds of client processes, which the workers share; see `Settings`."""
        settings = self._settings
        return Limits(
            timeout=settings.process_timeout,
            of_session=settings.max_processes_per_session,
            processes=settings.max_processes,
        )

    @property
    def connected(self) -> bool:
        """Whether other workers can be told something now."""
        return self._broker.connected

    def members_elsewhere(self) -> int:
        """Return how many members of families only other workers have."""
        return self._broker.elsewhere

    def __len__(self) -> int:
        self.dropped.collect()
        return self._live

    def find(self, name: str) -> Feed | None:
        """Return the feed of a site channel that is live or still readable."""
        return self.site.directory.find(name)

    def make_feed(
        self,
        kind: Kind,
        place: Place,
        options: Options,
        *,
        sourced: bool,
        family: bool | None = None,
        barred: CometError | None = None,
    ) -> Feed:
        """Make the feed of a new channel. The feed is live at once.

        Args:
            kind: The kind of the channel.
            place: The place of the channel.
            options: The options of the channel.
            sourced: Whether the channel has a source.
            family: Whether a declared channel is a member of a family, which ends once no worker
                uses it; `None` for a channel that is not declared.
            barred: The reason why the channel may not be made unless another worker has it.
        """
        self.dropped.collect()
        name = options.name
        own = fresh_name() if name is None else check_name(name)
        spec = ChannelSpec(
            name=place.prefix + own,
            kind=kind.value,
            size=1 if kind.only_last else options.size,
            max_bytes=self._settings.history_bytes,
            max_age=options.max_age,
            owner=place.directory.owner if self._broker.shared else None,
        )
        feed = make_feed(spec, place.directory, self._runtime.clock.now)
        feed.authorize = options.authorize
        feed.html = options.html
        feed.linger = self._settings.linger if options.linger is None else options.linger
        feed.sourced = sourced
        if feed.owner is not None:
            feed.local, feed.broker, feed.adopt = False, self._broker, family is not None
            self._make_way(feed)
        elif self._broker.shared and place is self.site:
            feed.local = False
            feed.adopt = family is not None or (name is not None and self._store is self._unserved)
            feed.reclaim = family or name is None
            feed.guard = self._name_guard(feed)
        self._add(feed, place)
        if not feed.local:
            self.share(feed, barred)
        return feed

    def _make_way(self, feed: Feed) -> None:
        """Forget a window of the same name that is not read here: its channel may have ended."""
        window = feed.directory.find(feed.name)
        if window is not None and window.foreign and not window.live and not feed.adopt:
            self.end(window, "ended", keep=False, tell=False)

    def share(self, feed: Feed, barred: CometError | None = None) -> None:
        """Announce a channel to the other workers."""
        if self.publisher is not None:
            self.publisher.open(feed)
        else:
            self.sharing.open(feed, barred)

    def open_again(self, feed: Feed) -> None:
        """Open a channel that has ended elsewhere while it was used here; readers are told `full`.

        Call in the loop's thread.
        """
        self.sharing.open_again(self.renew(feed))

    def _lose(self, feed: Feed, error: CometError) -> None:
        """End a channel that could not be announced; another worker may have the name."""
        if not self._stopping:
            text = "channel %.200r is not known to other workers: %s"
            _logger.error(text, feed.name, error)
        elsewhere = isinstance(error, NonUniqueChannelName | TooManyFamilyChannels)
        self.end(feed, "failed", keep=not elsewhere, tell=False)

    def _name_guard(self, feed: Feed) -> str:
        declared = self.reserved.find(feed.name)
        name = self.guards.name(feed.name, feed.authorize, imported=feed.adopt)
        words = declared is not None and declared[1]
        return UNNAMED if name and words else name  # the rule of a family takes words, too

    def publish_by(self, publisher: Publisher | None) -> None:
        """Publish without serving: by a publisher, until this is called with `None`.

        Channels that were made meanwhile are forgotten in the end; other workers keep them.
        """
        directory = self.site.directory
        if publisher is not None:
            self._aside = self._stopping, self._store, frozenset(directory.feeds())
            self._stopping, self._store = False, publisher
        else:
            self._stopping, self._store, kept = self._aside
            for feed in directory.feeds():
                if feed not in kept:
                    self.end(feed, "ended", keep=False, tell=False)
        self.publisher = publisher

    def note_unserved(self) -> None:
        """Count a notification, if no client gets it until a lifespan starts."""
        if self._store is self._unserved:
            self._unserved.note()

    def forked(self) -> None:
        """Publish where no server runs: the parent process of this one serves."""
        self._store = self._unserved

    def _add(self, feed: Feed, place: Place) -> None:
        self._add_within(self._settings.max_virtual_channels, feed, place)

    def _add_within(self, limit: int | None, feed: Feed, place: Place) -> None:
        with self._lock:
            if limit is not None and self._live >= limit:
                raise TooManyVirtualChannels(limit)
            waiting = place.directory.add(feed)
            self._live += 1
        if waiting:
            self._runtime.loop.run(lambda: self._fanout.join(waiting, feed))

    def renew(self, feed: Feed, epoch: str | None = None, first: int = 1, began: int = 0) -> Feed:
        """Continue a channel in another incarnation; its readers are told `full`.

        Call in the loop's thread. Current listeners can still read the messages of the old
        incarnation.

        Args:
            feed: The feed of the old incarnation.
            epoch: The epoch of the new incarnation; `None` is a fresh epoch.
            first: The offset of the first message of the new incarnation.
            began: The offset of the newest message when the new incarnation began.

        Returns:
            The feed of the new incarnation; the old feed, if the channel ended at this moment.
        """
        if feed.kind.only_last and not feed.local:
            feed.rebase(epoch or feed.epoch, first)
            return feed
        new = make_feed(feed.spec, feed.directory, self._runtime.clock.now, epoch)
        new.reset(new.epoch, first)
        new.began = began
        new.inherit(feed)
        if not feed.directory.replace(feed, new):
            return feed
        feed.observers = ()
        self._fanout.close(feed, "restarted")
        # The listeners are told `full` and have yet to subscribe to the new incarnation. Without a
        # listener the linger time is running already; a renewal does not extend it.
        for observe in new.observers if feed.listeners else ():
            observe(0)
        return new

    def publish(self, feed: Feed, data: bytes, id_: str | None = None) -> Delivery:
        """Publish encoded data on a feed, see `Channel.publish`."""
        if id_ is not None:
            feed.check_open()  # a broker may find the id first
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        stored = self.append(feed, data, id_)
        delivery = Delivery(self._runtime, feed, stored, self._settings.timeout)
        if self._settles:
            self.sharing.settle(partial(_wait_stored, delivery))
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
                return self._broker.append(feed, data, sourced=True)
            return self._store.append(feed, data, id=id_)
        except ChannelFull:
            self._fanout.mark(feed)  # so that the server tells its reader
            self.end(feed, "full")
            raise

    async def ready(self, feed: Feed) -> None:
        """Return once all workers know a channel, see `Channel.ready`."""
        self._check(feed)
        await self.sharing.opened(feed)

    async def count(self, feed: Feed) -> int:
        """Return how many client connections all workers have open on a channel.

        Raises:
            BrokerUnavailable: The other workers cannot be reached.
            NotRunning: There are other workers, and this one does not run.
        """
        self._check(feed)
        question = json.dumps(["listeners", [feed.spec.owner, feed.name]])
        answers = await self._broker.ask_all(question, ASKED) if not feed.local else []
        return sum(json.loads(one) or 0 for one in answers) if answers else len(feed.listeners)

    def _check(self, feed: Feed) -> None:
        if not feed.local:
            self._runtime.loop.check()

    def touch(self, feed: Feed) -> None:
        """Record that the application uses a channel now. Thread-safe."""
        feed.used_at = self._runtime.clock.now()

    def make_demand(self, feed: Feed) -> Demand:
        """Make a feed read its source on demand; at once, if it has a listener already."""
        demand = Demand(feed, self._settings.message_limit)
        feed.demand = demand.ask
        feed.want = demand.ask if feed.local else partial(self._broker.want, feed)

        def ask() -> None:
            demand.ask(feed.window if feed.listeners else feed.wished)

        self._runtime.loop.run(ask)
        return demand

    def end(self, feed: Feed, reason: str, *, keep: bool = True, tell: bool = True) -> None:
        """End a feed and free its name, see `Channel.close`. Idempotent, thread-safe.

        Args:
            feed: The feed.
            reason: `ended`, `failed` or `full`.
            keep: Whether the messages can be read for `linger` seconds. A full channel answers
                `full` for as long as its client process lives.
            tell: Whether the channel ends in the other workers, too.
        """
        directory = feed.directory
        if directory.end(feed, keep=keep):
            with self._lock:
                self._live -= 1
            if not keep:
                directory.forget(feed)
            elif reason != "full":
                self._jobs.start(partial(self._forget_soon, feed))
            if not feed.local and tell:
                feed.closing = reason
                if self.publisher is not None:
                    self.publisher.open(feed)
                self._jobs.start(partial(self._end_everywhere, feed, reason))
            elif not feed.local:
                if feed.owner is not None:
                    feed.closing = reason  # the store may have the channel still
                self._broker.unfollow(feed)
        if not feed.left and (feed.closing is None or not tell):
            self._fanout.close(feed, reason)
        _stop_source(feed)

    def leave(self, feed: Feed) -> None:
        """Forget a channel that other workers go on with. Idempotent, thread-safe.

        Readers in this worker are told nothing, and go on elsewhere. Messages are still stored
        until the broker stops.
        """
        if feed.directory.end(feed, keep=False):
            with self._lock:
                self._live -= 1
            feed.left = True
            self._broker.unfollow(feed)
        _stop_source(feed)

    async def _end_everywhere(self, feed: Feed, reason: str) -> None:
        """End a channel in all workers; then in this one, whose listeners have all messages."""
        try:
            await self.sharing.end(feed, reason, known=self.publisher is not None)
        finally:
            self.end(feed, reason, tell=False)
            self._broker.unfollow(feed.latest)

    async def _forget_soon(self, feed: Feed) -> None:
        self._forget_later(feed)

    def _forget_later(self, feed: Feed) -> None:
        """Keep the messages of an ended channel readable while the lifespan runs for `linger`."""
        forget = Timeout(partial(feed.directory.forget, feed))
        self._runtime.timers.start(forget, feed.linger)

    @property
    def _jobs(self) -> Background | Publisher:
        return self._runtime.background if self.publisher is None else self.publisher

    @property
    def stopping(self) -> bool:
        """Whether the lifespan has stopped or is stopping: no source is read."""
        return self._stopping

    def begin(self) -> None:
        """Start with the lifespan: sources are read from now on."""
        self._stopping = False
        self._unserved.serve()
        self._store = self._broker
        self.dropped.collect()
        for feed in self.site.directory.feeds():
            feed.lasting = feed.closed is None
            shared = feed.local or feed.live or self.sharing.is_opening(feed)
            if feed.lasting and not shared:
                self.share(feed)  # it was shared in the lifespan before

    def stop(self) -> None:
        """End the channels of the site, because the server stops.

        A channel without a source that was made before the lifespan started is kept for the next
        lifespan, empty and in another incarnation. A source that is given later is closed without
        being read. Channels that other workers go on with do not end.
        """
        self._stopping = True
        for feed in self.site.directory.feeds():
            if feed.closed is not None:
                feed.directory.forget(feed)
            elif feed.stop is None and feed.lasting:
                self._set_aside(feed)
            elif feed.sourced and feed.stop is not None and not feed.adopt and not feed.local:
                self.end(feed, "failed", keep=False)  # no other worker has the source
            elif feed.local:
                self.end(feed, "ended", keep=False)
            else:
                self.leave(feed)

    def _set_aside(self, feed: Feed) -> None:
        """Keep a channel for the next lifespan; a shared one has its messages in the broker."""
        if feed.local:
            self.renew(feed)
        else:
            self._broker.unfollow(feed)
            feed.live = False

    def end_unused(self, feed: Feed, *, at_once: bool = False) -> None:
        """End a channel that is unused in this worker; other workers may still use it.

        Args:
            feed: The feed.
            at_once: Whether another channel needs the place.
        """
        if feed.owner is not None:
            self.end(feed, "ended", keep=False)
        elif not self._broker.retire(feed, 0 if at_once else feed.linger):
            self.end(feed, "ended", keep=False, tell=False)


def _stop_source(feed: Feed) -> None:
    stop = feed.stop  # read once: the pump removes it when the source has ended
    if stop is not None:
        stop()


async def _wait_stored(delivery: Delivery) -> None:
    await delivery.stored()
