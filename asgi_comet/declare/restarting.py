"""Keeping the source of a declared channel running: one that raises is started again.

Owns when that is, and that the old source has closed before the next one begins. Must not know
names, patterns or who may read.
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
from asgi_comet._runtime.timers import Timer, Timers
from asgi_comet.channels.channels import Channels
from asgi_comet.channels.encoding import Encode
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.source import Demand, Pump

__all__ = ["Restarting", "Script", "Silent"]

_logger = logging.getLogger(__name__)

PAUSE = 0.5  # seconds before the first start again, at most; twice as long each time
PAUSE_AT_LEAST = 0.1  # seconds
PAUSE_AT_MOST = 30.0  # seconds
STEADY = 60.0  # seconds after which a source that ran counts as if it had never failed


@dataclass(frozen=True, slots=True)
class Script:
    """What a declared channel reads.

    Attributes:
        make: Makes its source.
        encode: Encodes a value.
        left: Told that the channel has ended; more than once, in any thread.
    """

    make: Callable[[], AsyncIterator[Any]]
    encode: Encode
    left: Callable[[Restarting], None]


class Silent:
    """A member of a family that reads no source: it is only published to, and needs no task.

    Args:
        feed: The channel's feed.
        left: Called when the channel has ended; more than once, in any thread.
        runtime: Where `forget` is called.

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
    """Reads sources into a channel, one after the other, until one ends or the channel does.

    A channel goes on in another incarnation after a failure; a newest one, of which nobody can miss
    anything, just goes on.

    Args:
        feed: The channel's first feed.
        script: What it reads.
        channels: Where it is published, renewed and ended.
        runtime: Where it runs.

    Attributes:
        feed: The channel's feed now.
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

    def __init__(self, feed: Feed, script: Script, channels: Channels, runtime: Runtime) -> None:
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
        self._pause = _Pause(runtime.timers)
        feed.stop = self.stop
        self._ask()

    def stop(self) -> None:
        """Have the source closed, and none started again. Idempotent, thread-safe."""
        self._stopped = True
        self._script.left(self)
        self._runtime.loop.run(self._stop)

    async def run(self) -> None:
        """Read until the channel is over."""
        while not self._stopped:
            self._again = False
            self._began = self._runtime.clock.now()
            feed = self.feed
            self._pump = Pump(
                feed,
                self._script.make(),
                publish=partial(self._publish, feed),
                ended=self._over,
                demand=self._demand,
                runtime=self._runtime,
            )
            await self._pump.run()  # its `aclose()` has run then
            self._pump = None
            if not self._again or self._stopped:
                return
            await self._pause.take(_choose_pause(self._failures))

    def _publish(self, feed: Feed, value: Any) -> None:
        self._channels.publish(feed, self._script.encode(feed.name, value))

    def _ask(self) -> None:
        if self.feed.kind.on_demand:
            self._demand = self._channels.make_demand(self.feed)

    def _over(self, reason: str) -> None:
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
            # Whoever listened is told, and has yet to come here. Where nobody did, the member has
            # been waiting for somebody, and a failure does not let it wait any longer.
            for observe in self.feed.observers if feed.listeners else ():
                observe(0)

    def _stop(self) -> None:
        if self._pump is not None:
            self._pump.stop()
        self._pause.end()


def _choose_pause(failures: int) -> float:
    longest = min(PAUSE * 2 ** min(failures - 1, 10), PAUSE_AT_MOST)
    return max(random.uniform(0, longest), PAUSE_AT_LEAST)  # noqa: S311 - spreads load, no secret


class _Pause(Timer):
    """A wait that can be cut short for good."""

    __slots__ = ("_over", "_timers")

    def __init__(self, timers: Timers) -> None:
        super().__init__()
        self._timers = timers
        self._over: anyio.Event | None = None

    async def take(self, seconds: float) -> None:
        """Return after that many seconds, or when it is to end."""
        self._over = anyio.Event()
        self._timers.start(self, seconds)
        try:
            await self._over.wait()
        finally:
            self._timers.stop(self)

    def end(self) -> None:
        """End it, if anybody waits."""
        if self._over is not None:
            self._over.set()

    def expire(self) -> None:
        """It has lasted long enough."""
        self.end()
