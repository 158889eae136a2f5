"""The channels of other workers, as this worker has them.

Owns how a window on such a channel is made, and when this worker lets it go. Must not know
transports, requests, sessions or the wire.
"""

from __future__ import annotations

from functools import partial

from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.channels.aged import make_feed
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.expiry import Leave
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.registry import Registry
from asgi_comet.errors import NonUniqueChannelName

__all__ = ["Adopting"]


class Adopting(Registry):
    """A registry that takes in channels of other workers. Arguments as `Registry`."""

    async def adopt(self, name: str) -> Feed | None:
        """Return a feed for a site channel of other workers; `None` if there is none.

        A channel that has ended can be read for its `linger` time, unless every worker makes the
        channel: the next reader then starts the channel afresh, maybe in a worker of newer code.

        Raises:
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
            BrokerUnavailable: The broker cannot be reached.
            UnknownGuard: This worker does not know which clients may read the channel.
        """
        spec = await self._broker.find(name)
        feed = self.find(name)  # another task may have made the feed meanwhile
        if spec is not None and self._is_missing(feed, spec):
            feed = self._make_adopted(spec, self.site)
            feed.authorize, feed.guard = self.guards.get(spec.guard), spec.guard
            if spec.closed is None:
                self._use(feed)
            else:
                self._add_ended(feed, self.site, spec.closed)
        return feed

    @staticmethod
    def _is_missing(feed: Feed | None, spec: ChannelSpec) -> bool:
        if spec.closed is None:
            return feed is None or feed.outlived
        return feed is None and not spec.adopt

    def _make_adopted(self, spec: ChannelSpec, place: Place) -> Feed:
        feed = make_feed(spec, place.directory, self._runtime.clock.now)
        feed.local, feed.linger = False, self._settings.linger
        feed.adopt, feed.sourced, feed.reclaim = spec.adopt, spec.sourced, spec.reclaim
        return feed

    def _add_ended(self, feed: Feed, place: Place, reason: str) -> None:
        """Add a channel that has ended in another worker; it can be read for a while."""
        feed.closed = reason
        feed.counters = self.counters_of(feed.name)
        place.directory.add_ended(feed)
        if reason != "full":
            self.ending.forget_later(feed)

    def _use(self, feed: Feed) -> None:
        """Add a channel of other workers, for as long as this worker uses the channel."""
        timers, clock = self._runtime.timers, self._runtime.clock
        leave = Leave(lambda: feed.latest, timers, clock, self.ending.end_unused)
        feed.observers = (leave.observe,)
        self._add(feed, self.site)
        leave.observe(0)  # the client may be refused, or leave before the channel is followed

    def window(self, place: Place, spec: ChannelSpec) -> Feed:
        """Return the window on a channel of a client process; made if this worker has none.

        Call in the loop's thread, when the broker is about to fill the window for a connection of
        this worker. Listeners that wait for the channel are joined.

        Raises:
            ProcessClosed: The client process has closed.
        """
        directory = place.directory
        feed = directory.find(spec.name)
        over = feed is not None and (feed.closed or feed.closing) is not None
        if feed is None or (over and spec.closed is None):
            feed = self._make_window(place, spec)
        feed.live = True
        waiting = directory.release(spec.name)
        self._fanout.join(waiting, feed)
        if waiting and feed.want is not None:  # once the broker fills the window
            self._runtime.loop.run_soon(partial(feed.want, feed.window))
        return feed

    def _make_window(self, place: Place, spec: ChannelSpec) -> Feed:
        feed = self._make_adopted(spec, place)
        feed.broker, feed.foreign = self._broker, True
        if feed.kind.on_demand:
            feed.want = partial(self._broker.want, feed)
        if spec.closed is not None:
            self._add_ended(feed, place, spec.closed)
            return feed
        try:
            self._add_within(None, feed, place)  # the channel is counted where it was made
        except NonUniqueChannelName:  # another thread has made it at this moment
            return self.window(place, spec)
        return feed

    def let_go(self, directory: Directory) -> None:
        """Forget the channels of a client process that this worker forgets.

        A channel whose source only this worker has ends everywhere; the others live on.
        """
        for feed in directory.feeds():
            if feed.sourced and feed.stop is not None and not feed.adopt:
                self.ending.end(feed, "failed", keep=False)
            else:
                self.ending.leave(feed)
