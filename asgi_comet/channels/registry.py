"""The registry of all channels: makes and counts their feeds.

Owns how many channels live, and which of them outlive a lifespan. Must not know transports,
requests, sessions or the wire.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from asgi_comet._runtime.counters import ChannelCounters
from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.brokers.people import Limits
from asgi_comet.channels.aged import make_feed
from asgi_comet.channels.appending import Appending
from asgi_comet.channels.directory import Place
from asgi_comet.channels.dropped import Dropped
from asgi_comet.channels.ending import Ending
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
    CometError,
    NonUniqueChannelName,
    ProcessClosed,
    TooManyFamilyChannels,
    TooManyVirtualChannels,
)
from asgi_comet.log_events import event
from asgi_comet.settings import Settings

__all__ = ["Registry"]

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
        dropped: The channels that the application has dropped.
        sharing: The channels that other workers have, too.
        ending: How a channel ends.
        appending: Stores messages.
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
        self._settings = settings
        self._broker = broker
        self._aside: tuple[bool, frozenset[Feed]]  # while the process only publishes
        self._fanout = fanout
        self._runtime = runtime
        self.sharing: Sharing = Sharing(broker, runtime, self._lose)
        self.ending: Ending = Ending(
            broker, self.sharing, fanout, runtime, self._uncount, lambda: self.appending.publisher
        )
        self.appending: Appending = Appending(
            settings, broker, fanout, runtime, self.sharing, self.ending
        )
        self.dropped: Dropped = Dropped(runtime, settings.linger, self.ending.end_unused)
        self._lock = site.directory.lock
        self._live = 0
        self._stopping = False
        self._sources: WeakValueDictionary[int, AsyncIterator[Any]] = WeakValueDictionary()

    @property
    def restarts(self) -> int:
        """How often sources of declared channels were restarted."""
        return sum(one.restarts for one in self._runtime.counters.channels.values())

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
        feed.reclaim = feed.owner is None and (bool(family) or name is None)
        if feed.owner is not None:
            feed.local, feed.broker, feed.adopt = False, self._broker, family is not None
            self._make_way(feed)
        elif self._broker.shared and place is self.site:
            feed.local = False
            feed.adopt = family is not None or (name is not None and self.appending.unserved)
            feed.guard = self._name_guard(feed)
        self._add(feed, place)
        if not feed.local:
            self.share(feed, barred)
        return feed

    def _make_way(self, feed: Feed) -> None:
        """Forget a window of the same name that is not read here: its channel may have ended."""
        window = feed.directory.find(feed.name)
        if window is not None and window.foreign and not window.live and not feed.adopt:
            self.ending.end(window, "ended", keep=False, tell=False)

    def share(self, feed: Feed, barred: CometError | None = None) -> None:
        """Announce a channel to the other workers."""
        publisher = self.appending.publisher
        if publisher is not None:
            publisher.open(feed)
        else:
            self.sharing.open(feed, barred)

    def open_again(self, feed: Feed) -> None:
        """Open a channel that has ended elsewhere while it was used here; readers are told `full`.

        Call in the loop's thread.
        """
        self.sharing.open_again(self.renew(feed))

    def _lose(self, feed: Feed, error: CometError) -> None:
        """End a channel that could not be announced; another worker may have the name."""
        if not self._stopping and not isinstance(error, ProcessClosed):  # whose channels end anyway
            text = "channel %.200r is not known to other workers: %s"
            _logger.error(
                text,
                feed.name,
                error,
                extra=event("channel.unshared", channel=feed.name, reason=str(error)),
            )
        elsewhere = isinstance(error, NonUniqueChannelName | TooManyFamilyChannels)
        self.ending.end(feed, "failed", keep=not elsewhere, tell=False)

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
            self._aside = self._stopping, frozenset(directory.feeds())
            self._stopping, self.appending.publisher = False, publisher
        else:
            self._stopping, kept = self._aside
            self.appending.publisher = None
            for feed in directory.feeds():
                if feed not in kept:
                    self.ending.end(feed, "ended", keep=False, tell=False)

    def _add(self, feed: Feed, place: Place) -> None:
        self._add_within(self._settings.max_virtual_channels, feed, place)

    def _add_within(self, limit: int | None, feed: Feed, place: Place) -> None:
        feed.counters = self.counters_of(feed.name)
        with self._lock:
            if limit is not None and self._live >= limit:
                raise TooManyVirtualChannels(limit)
            waiting = place.directory.add(feed)
            self._live += 1
        if waiting:
            self._runtime.loop.run(lambda: self._fanout.join(waiting, feed))

    def counters_of(self, name: str) -> ChannelCounters:
        """Return the counts of a channel of that name."""
        counters = self._runtime.counters
        label = self.reserved.label(name)
        return counters.created if label is None else counters.of(label)

    def _uncount(self) -> None:
        with self._lock:
            self._live -= 1

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

    def require_position(self, feed: Feed) -> None:
        """Wait in a worker thread until this worker knows where a member of a family ends.

        Raises:
            BrokerUnavailable: It takes too long.
            MustAwait: This is an event loop.
        """
        if self._is_unknown(feed):
            ready = partial(self.sharing.ready, feed)
            self.sharing.ask("channel.reference()", "await channel.ready() before it", ready)

    def _is_unknown(self, feed: Feed) -> bool:
        """Return whether another worker may have messages of a member that this one lacks."""
        if feed.live or feed.owner is not None or feed.over or self.appending.publisher is not None:
            return False
        if not self._runtime.loop.running or (feed.local and not self._settings.strict_shared):
            return False
        declared = self.reserved.find(feed.name)
        return declared is not None and bool(declared[1])

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

    @property
    def stopping(self) -> bool:
        """Whether the lifespan has stopped or is stopping: no source is read."""
        return self._stopping

    def begin(self) -> None:
        """Start with the lifespan: sources are read from now on."""
        self._stopping = False
        self.appending.begin()
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
                self.ending.end(feed, "failed", keep=False)  # no other worker has the source
            elif feed.local:
                self.ending.end(feed, "ended", keep=False)
            else:
                self.ending.leave(feed)

    def _set_aside(self, feed: Feed) -> None:
        """Keep a channel for the next lifespan; a shared one has its messages in the broker."""
        if feed.local:
            self.renew(feed)
        else:
            self._broker.unfollow(feed)
            feed.live = False
