"""The registry of all channels: makes, counts, publishes on and ends their feeds.

Owns how many channels live, when an unused channel is reclaimed, and when an ended one is
forgotten. Must not know transports, requests, sessions or the wire.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timeout
from asgi_comet.brokers.base import Broker, Stored
from asgi_comet.brokers.unserved import Unserved
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.directory import Place
from asgi_comet.channels.expiry import Leave, Linger
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Authorize, Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.reserved import Reserved
from asgi_comet.channels.scope import Tab
from asgi_comet.channels.source import Demand
from asgi_comet.core.history import History
from asgi_comet.core.names import check_name, fresh_name
from asgi_comet.errors import ChannelFull, CometError, MessageTooLarge, TooManyVirtualChannels
from asgi_comet.protocol.sse import Html
from asgi_comet.settings import Settings

__all__ = ["Options", "Registry"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a new channel.

    Attributes:
        size: How many messages the channel holds; on demand, how far the source is read ahead of
            the client's acknowledgements.
        name: The name, without the `~` of a process channel; `None` for a fresh identifier.
        linger: How many seconds to keep the channel unused, or after its end; `None` is
            `Settings.linger`.
        type: The type of the values, anything pydantic knows; `None` for any value.
        authorize: Decides which clients may read, at the site; `None` is every client.
        html: Renders values as HTML; `None` for a channel without HTML.
    """

    size: int
    name: str | None = None
    linger: float | None = None
    type: Any = None
    authorize: Authorize | None = None
    html: Html | None = None


class Opening:
    """A channel that is being announced to the other workers.

    Attributes:
        done: Set once the other workers know the channel, or the announcement failed.
        error: The reason of the failure.
    """

    def __init__(self) -> None:
        self.done: anyio.Event = anyio.Event()
        self.error: CometError | None = None

    async def wait(self) -> None:
        """Return once the other workers know the channel.

        Raises:
            CometError: The announcement failed.
        """
        await self.done.wait()
        if self.error is not None:
            raise self.error


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
        restarts: How often sources of declared channels were restarted.
        settle: Delays the answer to the current request, if any, until a function has returned.
    """

    settle: Callable[[Callable[[], Awaitable[None]]], None]  # set by `Comet`

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
        self.restarts: int = 0
        self._settings = settings
        self._broker = broker
        self._unserved = Unserved(broker)
        self._store: Broker | Unserved = self._unserved  # until the first lifespan
        self._fanout = fanout
        self._runtime = runtime
        self._lock = site.directory.lock
        self._live = 0
        self._stopping = False
        # Feeds whose Channel was garbage-collected, with their places. A finalizer may run
        # anywhere, even in a thread that holds the lock, so a finalizer only appends here.
        self._dropped: deque[tuple[Feed, Place]] = deque()
        self._lasting: set[Feed] = set()  # of the site, made before the lifespan started
        self._openings: dict[Feed, Opening] = {}
        self._sources: WeakValueDictionary[int, AsyncIterator[Any]] = WeakValueDictionary()

    def __len__(self) -> int:
        self.collect()
        return self._live

    def find(self, name: str) -> Feed | None:
        """Return the feed of a site channel that is live or still readable."""
        return self.site.directory.find(name)

    def make_feed(
        self, kind: Kind, place: Place, options: Options, *, sourced: bool, adopt: bool = False
    ) -> Feed:
        """Make the feed of a new channel. The feed is live at once.

        Args:
            kind: The kind of the channel.
            place: The place of the channel.
            options: The options of the channel.
            sourced: Whether this worker reads a source for the channel.
            adopt: Whether every worker makes the channel by the same line of code, also once the
                lifespan has started.
        """
        self.collect()
        name = options.name
        own = fresh_name() if name is None else check_name(name)
        history = History(
            size=1 if kind.only_last else options.size, max_bytes=self._settings.history_bytes
        )
        feed = Feed(place.prefix + own, kind, history, place.directory)
        feed.authorize = options.authorize
        feed.html = options.html
        feed.linger = self._settings.linger if options.linger is None else options.linger
        self._add(feed, place)
        if self._broker.shared and place is self.site and not sourced:
            feed.local, feed.adopt = False, adopt or self._store is self._unserved
            self._share(feed)
        return feed

    async def adopt(self, name: str) -> Feed | None:
        """Return a feed for a site channel of other workers; `None` if there is none.

        Raises:
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
            BrokerUnavailable: The broker cannot be reached.
        """
        spec = await self._broker.find(name)
        feed = self.find(name)  # another task may have made the feed meanwhile
        if feed is None and spec is not None:
            history = History(size=spec.size, max_bytes=spec.max_bytes)
            feed = Feed(name, Kind(spec.kind), history, self.site.directory)
            feed.local, feed.linger = False, self._settings.linger
            timers, clock = self._runtime.timers, self._runtime.clock
            kept = feed
            leave = Leave(lambda: kept.latest, timers, clock, self.end_unused)
            feed.observers = (leave.observe,)
            self._add(feed, self.site)
        return feed

    async def follow(self, feed: Feed) -> None:
        """Receive every message of a channel in this worker, from the oldest held one on.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
        """
        if not feed.local and not feed.live:
            opening = self._openings.get(feed)
            if opening is not None:
                await opening.wait()
            await self._broker.follow(feed)
            feed.live = True

    def _add(self, feed: Feed, place: Place) -> None:
        limit = self._settings.max_virtual_channels
        with self._lock:
            if limit is not None and self._live >= limit:
                raise TooManyVirtualChannels(limit)
            waiting = place.directory.add(feed)
            self._live += 1
        if waiting:
            self._runtime.loop.run(lambda: self._fanout.join(waiting, feed))

    def _share(self, feed: Feed) -> None:
        """Announce a channel to the other workers; in a request, before the answer begins."""
        opening = self._openings[feed] = Opening()
        self.settle(opening.wait)
        self._runtime.background.start(partial(self._open_elsewhere, feed, opening))

    async def _open_elsewhere(self, feed: Feed, opening: Opening) -> None:
        try:
            await self._broker.open(feed)
            await self._broker.follow(feed)
            feed.live = True
        except CometError as error:
            opening.error = error
            _logger.error("channel %.200r is not known to other workers: %s", feed.name, error)  # noqa: TRY400
            self.end(feed, "failed", tell=False)
        finally:
            del self._openings[feed]
            opening.done.set()

    def renew(self, feed: Feed, epoch: str | None = None, first: int = 1) -> Feed:
        """Continue a channel in another incarnation; its readers are told `full`.

        Call in the loop's thread. Current listeners can still read the messages of the old
        incarnation.

        Args:
            feed: The feed of the old incarnation.
            epoch: The epoch of the new incarnation; `None` is a fresh epoch.
            first: The offset of the first message of the new incarnation.

        Returns:
            The feed of the new incarnation; the old feed, if the channel ended at this moment.
        """
        history = History(size=feed.history.size, max_bytes=feed.history.max_bytes, epoch=epoch)
        history.reset(history.epoch, first)
        new = Feed(feed.name, feed.kind, history, feed.directory)
        new.authorize, new.stop, new.uses = feed.authorize, feed.stop, feed.uses
        new.observers, new.used_at, new.linger = feed.observers, feed.used_at, feed.linger
        new.html, new.local, new.live, new.adopt = feed.html, feed.local, feed.live, feed.adopt
        if not feed.directory.replace(feed, new):
            return feed
        feed.observers = ()
        self._fanout.close(feed, "restarted")
        return new

    def publish(self, feed: Feed, data: bytes) -> Delivery:
        """Publish encoded data on a feed, see `Channel.publish`."""
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        return Delivery(self._runtime, feed, self.append(feed, data), self._settings.timeout)

    def append(self, feed: Feed, data: bytes) -> Stored:
        """Append encoded data to a feed, without an outcome to await. Thread-safe.

        Raises:
            ChannelClosed: The channel has ended.
            ChannelFull: The channel is full, so it ends.
        """
        try:
            if feed.local and self._broker.shared:
                offset = feed.append(data)
                self._fanout.appended(feed)
                return offset
            return self._store.append(feed, data)
        except ChannelFull:
            self._fanout.mark(feed)  # so that the server tells its reader
            self.end(feed, "full")
            raise

    def touch(self, feed: Feed) -> None:
        """Record that the application uses a channel now. Thread-safe."""
        feed.used_at = self._runtime.clock.now()

    def make_demand(self, feed: Feed) -> Demand:
        """Make a feed read its source on demand; at once, if it has a listener already."""
        demand = Demand(self._settings.message_limit)
        feed.want = demand.ask

        def ask() -> None:
            if feed.listeners:
                demand.ask(feed.window)

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
        self._lasting.discard(feed)
        if directory.end(feed, keep=keep):
            with self._lock:
                self._live -= 1
            if not keep:
                directory.forget(feed)
            elif reason != "full":
                self._runtime.background.start(partial(self._forget_later, feed))
            if not feed.local:
                self._broker.unfollow(feed)
                if tell:
                    self._runtime.background.start(partial(self._broker.end, feed, reason))
        self._fanout.close(feed, reason)
        stop = feed.stop  # read once: the pump removes it when the source has ended
        if stop is not None:
            stop()

    async def _forget_later(self, feed: Feed) -> None:
        """Keep the messages of an ended channel readable while the lifespan runs for `linger`."""
        forget = Timeout(partial(feed.directory.forget, feed))
        self._runtime.timers.start(forget, feed.linger)

    @property
    def stopping(self) -> bool:
        """Whether the lifespan has stopped or is stopping: no source is read."""
        return self._stopping

    def begin(self) -> None:
        """Start with the lifespan: sources are read from now on."""
        self._stopping = False
        self._unserved.serve()
        self._store = self._broker
        self.collect()
        self._lasting = {f for f in self.site.directory.feeds() if f.closed is None}

    def stop(self) -> None:
        """End the channels of the site, because the server stops.

        A channel without a source that was made before the lifespan started is kept for the next
        lifespan, empty and in another incarnation. A source that is given later is closed without
        being read.
        """
        self._stopping = True
        for feed in self.site.directory.feeds():
            if feed.closed is not None:
                feed.directory.forget(feed)
            elif feed.stop is None and feed in self._lasting:
                self._lasting.add(self.renew(feed))
            else:
                self.end(feed, "ended", keep=False, tell=False)

    def end_unused(self, feed: Feed) -> None:
        """End a channel that is unused in this worker; other workers may still use it."""
        self.end(feed, "ended", keep=False, tell=False)

    def collect(self) -> None:
        """Reclaim dropped channels that were never used; start the linger time of the others."""
        for _ in range(len(self._dropped)):
            try:
                feed, place = self._dropped.popleft()
            except IndexError:  # pragma: no cover - another thread took it at this moment
                return
            if feed.uses == 0:
                self.end_unused(feed)
            elif not self._runtime.loop.running:
                self._dropped.append((feed, place))  # the linger time begins with the lifespan
            else:
                timers, linger = self._runtime.timers, self._settings.linger
                dropped = Linger(feed, timers, linger, self.end_unused, partial(_is_away, place))
                self._runtime.loop.run(dropped.begin)

    def drop(self, feed: Feed, place: Place) -> None:
        """Record that the application has dropped a channel. Safe in finalizers."""
        self._dropped.append((feed, place))
        self._runtime.loop.run_soon(self.collect)


def _is_away(place: Place) -> bool:
    """Tell whether a channel's only reader is a tab without a connection right now."""
    return isinstance(place.scope, Tab) and not place.scope.connections
