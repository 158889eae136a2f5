"""How a channel ends, in this worker or in all of them.

Owns the order of an end, and when an ended channel is forgotten. Must not know why a channel ends,
nor how many channels live.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timeout
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.publisher import Publisher
from asgi_comet.channels.sharing import Sharing

__all__ = ["Ending"]


class Ending:
    """The ends of channels. Thread-safe.

    Args:
        broker: Joins the workers.
        sharing: Ends channels in the other workers, too.
        fanout: Wakes the listeners of a channel.
        runtime: Runs what takes time.
        on_end: Called once for each channel, when it ends.
        publisher: Returns what publishes, while the process publishes and does not serve.
    """

    def __init__(
        self,
        broker: Broker,
        sharing: Sharing,
        fanout: Fanout,
        runtime: Runtime,
        on_end: Callable[[], None],
        publisher: Callable[[], Publisher | None],
    ) -> None:
        self._broker = broker
        self._sharing = sharing
        self._fanout = fanout
        self._runtime = runtime
        self._on_end = on_end
        self._publisher = publisher

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
            self._on_end()
            if not keep:
                directory.forget(feed)
            elif reason != "full":
                self._jobs.start(partial(self._forget_soon, feed))
            if not feed.local and tell:
                feed.closing = reason
                publisher = self._publisher()
                if publisher is not None:
                    publisher.open(feed)
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
            self._on_end()
            feed.left = True
            self._broker.unfollow(feed)
        _stop_source(feed)

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

    def forget_later(self, feed: Feed) -> None:
        """Keep the messages of an ended channel readable while the lifespan runs for `linger`."""
        forget = Timeout(partial(feed.directory.forget, feed))
        self._runtime.timers.start(forget, feed.linger)

    async def _end_everywhere(self, feed: Feed, reason: str) -> None:
        """End a channel in all workers; then in this one, whose listeners have all messages."""
        try:
            await self._sharing.end(feed, reason, known=self._publisher() is not None)
        finally:
            self.end(feed, reason, tell=False)
            self._broker.unfollow(feed.latest)

    async def _forget_soon(self, feed: Feed) -> None:
        self.forget_later(feed)

    @property
    def _jobs(self) -> Background | Publisher:
        return self._publisher() or self._runtime.background


def _stop_source(feed: Feed) -> None:
    stop = feed.stop  # read once: the pump removes it when the source has ended
    if stop is not None:
        stop()
