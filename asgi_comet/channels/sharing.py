"""The channels of this worker that other workers have, too.

Owns which channels are being announced, and the order: the broker learns of a channel before other
calls about the channel. Must not know names, directories, nor how a broker carries messages.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.right import Right
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, CometError, NonUniqueChannelName

__all__ = ["Sharing"]

PATIENCE = 2.0  # seconds that a request waits for an announcement
ASKED = 2.0  # seconds that other workers have for an answer


class Opening:
    """A channel that is being announced to the other workers.

    Args:
        barred: The reason why the channel may not be made unless another worker has it.

    Attributes:
        done: Set once the other workers know the channel, or the announcement failed.
        error: The reason of the failure.
    """

    def __init__(self, barred: CometError | None) -> None:
        self.barred: CometError | None = barred
        self.done: anyio.Event = anyio.Event()
        self.error: CometError | None = None

    async def wait(self) -> None:
        """Return once the other workers know the channel.

        Raises:
            BrokerUnavailable: The announcement takes too long; it goes on.
            CometError: The announcement failed.
        """
        with anyio.move_on_after(PATIENCE):
            await self.done.wait()
        if not self.done.is_set():
            raise BrokerUnavailable("a new channel is not known to the other workers yet")
        if self.error is not None:
            raise self.error

    async def wait_to_read(self) -> None:
        """Return once the channel can be read.

        Raises:
            BrokerUnavailable: It takes too long; or another worker has a channel of that name.
            CometError: The announcement failed.
        """
        try:
            await self.wait()
        except NonUniqueChannelName as error:
            raise BrokerUnavailable(str(error)) from error


class Sharing:
    """The part of a registry that speaks to the broker.

    Args:
        broker: Joins the workers.
        runtime: Runs announcements.
        lost: Called with a channel that could not be announced, and the reason.

    Attributes:
        settle: Delays the answer to the current request, if any, until a function has returned.
        owner_known: Waits until the workers know a client process, by its id.
        ask: Runs a coroutine function from a worker thread, see `Asking.block`.
    """

    settle: Callable[[Callable[[], Awaitable[None]]], None]  # set by `Comet`
    owner_known: Callable[[str], Awaitable[None]]  # set by `Comet`
    ask: Callable[[str, str, Callable[[], Awaitable[None]]], None]  # set by `Comet`

    def __init__(
        self, broker: Broker, runtime: Runtime, lost: Callable[[Feed, CometError], None]
    ) -> None:
        self._broker = broker
        self._loop = runtime.loop
        self._background = runtime.background
        self._lost = lost
        self._openings: dict[Feed, Opening] = {}

    @property
    def connected(self) -> bool:
        """Whether other workers can be told something now."""
        return self._broker.connected

    def members_elsewhere(self) -> int:
        """Return how many members of families only other workers have."""
        return self._broker.elsewhere

    def is_opening(self, feed: Feed) -> bool:
        """Return whether a channel is being announced."""
        return feed in self._openings

    def open(self, feed: Feed, barred: CometError | None = None) -> None:
        """Announce a channel to the other workers; in a request, before the answer begins.

        Args:
            feed: The channel.
            barred: The reason why the channel may not be made unless another worker has it.
        """
        opening = self._openings[feed] = Opening(barred)
        self.settle(opening.wait)
        self._background.start(partial(self._open, feed, opening))

    def open_again(self, feed: Feed) -> None:
        """Announce a channel that has ended; its source, if any, is read from the start."""
        feed.live = False
        self._broker.release(feed, clean=False)
        if feed.right is not None:
            feed.right.take()
        self.open(feed)

    async def ready(self, feed: Feed) -> None:
        """Return once all workers know a channel, see `Channel.ready`."""
        if feed.local:
            feed.live = True  # for `Settings.strict_shared`: the application has waited
        self._check(feed)
        await self.opened(feed)

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
            self._loop.check()

    async def opened(self, feed: Feed) -> None:
        """Return once a channel of this worker is known to the others.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
        """
        opening = self._openings.get(feed)
        if opening is not None:
            await opening.wait_to_read()

    async def follow(self, feed: Feed) -> None:
        """Receive every message of a channel in this worker, from the oldest held one on.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
        """
        if not feed.local and not feed.live:
            await self.opened(feed)
            await self._broker.follow(feed)
            feed.live = True
            if feed.latest.over:
                self._broker.unfollow(feed.latest)  # though a namesake may live

    async def _open(self, feed: Feed, opening: Opening) -> None:
        try:
            if feed.owner is not None:
                await self.owner_known(feed.owner)
            await self._broker.open(feed, make=opening.barred is None)
            if feed.owner is None:  # else the connection that reads it fills the window
                await self._broker.follow(feed)
                feed.latest.live = True
            if feed.latest.over:  # the client process has closed, or was let go, meanwhile
                self._broker.unfollow(feed.latest)
            else:
                self._bid(feed.latest)
        except CometError as error:
            missing = isinstance(error, ChannelClosed)
            opening.error = (missing and opening.barred) or error
            self._lost(feed, opening.error)
        finally:
            del self._openings[feed]
            opening.done.set()

    def _bid(self, feed: Feed) -> None:
        if feed.right is not None:
            self._broker.bid(feed, continues=feed.right.continues)
        elif feed.reclaim and not feed.sourced:
            self._broker.bid(feed)

    async def acquire(self, feed: Feed, right: Right) -> bool:
        """Wait until this worker may read the source of a channel.

        Args:
            feed: The channel.
            right: The right of this worker.

        Returns:
            Whether this worker may; `False` if the channel has ended first.
        """
        if not right.held and not right.cancelled:
            opening = self._openings.get(feed)
            if opening is not None:
                await opening.done.wait()
            self._broker.bid(feed.latest, continues=right.continues)
        return await right.wait()

    def release(self, feed: Feed, *, clean: bool) -> None:
        """Let other workers read the source of a channel.

        Args:
            feed: The channel.
            clean: Whether the source has closed, and all its values are stored.
        """
        self._broker.release(feed.latest, clean=clean)

    def restart(self, feed: Feed) -> None:
        """Continue a channel in another incarnation, because its source failed."""
        self._broker.renew(feed.latest)

    async def end(self, feed: Feed, reason: str, *, known: bool = False) -> None:
        """End a channel in all workers, after the announcement.

        Args:
            feed: The channel.
            reason: `ended` or `failed`.
            known: Whether the workers know the channel without the announcement.
        """
        opening = self._openings.get(feed)
        if opening is not None and not known:
            await opening.done.wait()
        await self._broker.end(feed.latest, reason)
