"""Restarts: a source of a declared channel that raises is started again.

Owns the pause before a restart, and closes the old source before starting the next one. Must not
know names, patterns or authorisation.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.encoding import Encode
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.registry import Registry
from asgi_comet.channels.source import Demand, Pump

__all__ = ["Restarting", "Script", "Silent"]

_logger = logging.getLogger(__name__)

PAUSE = 0.5  # seconds before the first restart, at most; doubled each time
PAUSE_AT_LEAST = 0.1  # seconds
PAUSE_AT_MOST = 30.0  # seconds
STEADY = 60.0  # seconds of running after which earlier failures are forgotten


@dataclass(frozen=True, slots=True)
class Script:
    """The source of a declared channel.

    Attributes:
        make: Makes the source.
        encode: Encodes a value.
        left: Called when the channel has ended; maybe several times, in any thread.
    """

    make: Callable[[], AsyncIterator[Any]]
    encode: Encode
    left: Callable[[Restarting], None]


class Silent:
    """A member of a family without a source: the application publishes, and no task runs.

    Args:
        feed: The channel's feed.
        left: Called when the channel has ended; maybe several times, in any thread.
        runtime: Calls `forget` in the loop's thread.

    Attributes:
        feed: The channel's feed.
        forget: Called once the channel has ended, in the loop's thread.
    """

    __slots__ = ("__weakref__", "_left", "_runtime", "feed", "forget")

    def __init__(self, feed: Feed, left: Callable[[Silent], None], runtime: Runtime) -> None:
        self.feed: Feed = feed
        self.forget: Callable[[], None] = _nothing_to_forget
        self._left = left
        self._runtime = runtime
        feed.stop = self.stop

    def stop(self) -> None:
        """Forget the member. Idempotent, thread-safe."""
        self._left(self)
        self._runtime.loop.run(self.forget)


def _nothing_to_forget() -> None:
    """Do nothing: the member ended before it began."""


class Restarting:
    """Reads sources into a channel, one after the other, until a source or the channel ends.

    After a failure a channel continues in another incarnation. A newest channel continues in the
    same one, since its clients miss nothing.

    Args:
        feed: The channel's first feed.
        script: The source.
        channels: Publishes on, renews and ends the channel.
        runtime: Runs the source.

    Attributes:
        feed: The current feed of the channel.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_began",
        "_channels",
        "_demand",
        "_failures",
        "_pause",
        "_pump",
        "_runtime",
        "_script",
        "_stopped",
        "feed",
    )

    def __init__(self, feed: Feed, script: Script, channels: Registry, runtime: Runtime) -> None:
        self.feed: Feed = feed
        self._script = script
        self._channels = channels
        self._runtime = runtime
        self._stopped = False
        self._again = False
        self._failures = 0
        self._began = 0.0
        self._demand: Demand | None = None
        self._pump: Pump | None = None
        self._pause: anyio.Event | None = None  # set to end the pause
        feed.stop = self.stop
        self._ask()

    def stop(self) -> None:
        """Close the source and do not restart it. Idempotent, thread-safe."""
        self._stopped = True
        self._script.left(self)
        self._runtime.loop.run(self._stop)

    async def run(self) -> None:
        """Read until the channel has ended."""
        while not self._stopped:
            self._again = False
            self._began = self._runtime.clock.now()
            feed = self.feed
            self._pump = Pump(
                feed,
                self._script.make(),
                publish=partial(self._publish, feed),
                ended=self._ended,
                demand=self._demand,
                runtime=self._runtime,
            )
            await self._pump.run()  # also closes the source
            self._pump = None
            if not self._again or self._stopped:
                return
            self._pause = anyio.Event()
            await self._runtime.timers.wait(self._pause, _choose_pause(self._failures))

    def _publish(self, feed: Feed, value: Any) -> None:
        self._channels.publish(feed, self._script.encode(feed.name, value))

    def _ask(self) -> None:
        if self.feed.kind.on_demand:
            self._demand = self._channels.make_demand(self.feed)

    def _ended(self, reason: str) -> None:
        feed = self.feed
        if reason != "failed" or self._stopped:
            self._channels.end(feed, reason)
            return
        steady = self._runtime.clock.now() - self._began >= STEADY
        self._failures = 1 if steady else self._failures + 1
        self._again = True
        self._channels.restarts += 1
        _logger.warning("the source of channel %.200r is to be started again", feed.name)
        if not feed.kind.only_last:
            self.feed = self._channels.renew(feed)
            self._ask()
            # The old feed's listeners are told `full` and have yet to subscribe to the new feed.
            # Without a listener the linger time is running already; a failure does not extend it.
            for observe in self.feed.observers if feed.listeners else ():
                observe(0)

    def _stop(self) -> None:
        if self._pump is not None:
            self._pump.stop()
        if self._pause is not None:
            self._pause.set()


def _choose_pause(failures: int) -> float:
    longest = min(PAUSE * 2 ** min(failures - 1, 10), PAUSE_AT_MOST)
    return max(random.uniform(0, longest), PAUSE_AT_LEAST)  # noqa: S311 - spreads load, no secret
