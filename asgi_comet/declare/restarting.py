"""Restarts: a source of a declared channel that raises is started again.

Owns the pause before a restart, and closes the old source before starting the next one. Must not
know names, patterns or authorisation.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.encoding import Encode
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.registry import Registry
from asgi_comet.channels.right import Right
from asgi_comet.channels.source import Demand, Pump
from asgi_comet.log_events import event

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
        make: Makes the source; of one that continues, after a message, if there is one.
        encode: Encodes a value.
        left: Called when the channel has ended; maybe several times, in any thread.
        continues: Whether the source goes on after the newest message.
    """

    make: Callable[..., AsyncIterator[Any]]
    encode: Encode
    left: Callable[[Restarting], None]
    continues: bool = False


class Silent:
    """A member of a family without a source: the application publishes, and no task runs.

    Args:
        feed: The channel's feed.
        left: Called when the channel has ended; maybe several times, in any thread.
        runtime: Calls `forget` in the loop's thread.

    Attributes:
        forget: Called once the channel has ended, in the loop's thread.
    """

    __slots__ = ("__weakref__", "_feed", "_left", "_runtime", "forget")

    def __init__(self, feed: Feed, left: Callable[[Silent], None], runtime: Runtime) -> None:
        self._feed = feed
        self.forget: Callable[[], None] = _nothing_to_forget
        self._left = left
        self._runtime = runtime
        feed.stop = self.stop

    state: ClassVar[str] = "none"
    """The state of the source: there is none."""

    fault: ClassVar[str] = ""
    """The traceback of the source: there is none."""

    @property
    def feed(self) -> Feed:
        """The current feed of the channel."""
        self._feed = feed = self._feed.latest
        return feed

    def stop(self) -> None:
        """Forget the member. Idempotent, thread-safe."""
        self._left(self)
        self._runtime.loop.run(self.forget)


def _nothing_to_forget() -> None:
    """Do nothing: the member ended before it began."""


class Restarting:
    """Reads sources into a channel, one after the other, until a source or the channel ends.

    After a failure a channel continues in another incarnation. A newest channel, and one whose
    source goes on where the channel stands, continue in the same one: their clients miss nothing.

    Args:
        feed: The channel's first feed.
        script: The source.
        channels: Publishes on, renews and ends the channel.
        runtime: Runs the source.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_began",
        "_channels",
        "_clean",
        "_demand",
        "_failures",
        "_fault",
        "_feed",
        "_pause",
        "_pump",
        "_right",
        "_runtime",
        "_script",
        "_stopped",
    )

    def __init__(self, feed: Feed, script: Script, channels: Registry, runtime: Runtime) -> None:
        self._feed = feed
        self._script = script
        self._channels = channels
        self._runtime = runtime
        self._stopped = False
        self._again = False
        self._failures = 0
        self._fault = ""
        self._began = 0.0
        self._demand: Demand | None = None
        self._pump: Pump | None = None
        self._clean = True
        self._pause: anyio.Event | None = None  # set to end the pause
        self._right = feed.right = Right(self._close, continues=script.continues)
        feed.stop = self.stop
        self._ask()

    @property
    def feed(self) -> Feed:
        """The current feed of the channel; the last one, once the channel was stopped."""
        if not self._stopped:  # else a later start of the channel may have succeeded it
            self._feed = self._feed.latest
        return self._feed

    @property
    def state(self) -> str:
        """The state of the source: `reads`, `restarts` after a failure, or `elsewhere`."""
        if self._pump is not None:
            return "reads"
        return "restarts" if self._pause is not None else "elsewhere"

    @property
    def fault(self) -> str:
        """The end of the traceback of the last failure of the source; empty without one."""
        return self._fault

    def stop(self) -> None:
        """Close the source and do not restart it. Idempotent, thread-safe."""
        self._stopped = True
        self._script.left(self)
        self._runtime.loop.run(self._stop)

    async def run(self) -> None:
        """Read while this worker may, until the channel has ended or the server stops."""
        right, sharing = self._right, self._channels.sharing
        while await sharing.acquire(self.feed, right) and not self._stopped:
            await self._read()
            if self._again and not self._stopped:
                self._pause = anyio.Event()
                await self._runtime.timers.wait(self._pause, _choose_pause(self._failures))
                self._pause = None
            elif not right.taken:
                break
        sharing.release(self.feed, clean=self._clean)

    async def _read(self) -> None:
        """Read one source, and close it."""
        self._again = self._right.taken = False
        self._began = self._runtime.clock.now()
        self._pump = Pump(
            self.feed,
            self._make(),
            publish=self._publish,
            ended=self._ended,
            demand=self._demand,
            runtime=self._runtime,
        )
        await self._pump.run()
        self._fault = self._pump.fault or self._fault
        self._clean, self._pump = self._pump.clean, None

    def _make(self) -> AsyncIterator[Any]:
        newest, self._right.newest = self._right.newest or self.feed.newest, None
        return self._script.make(after=newest) if self._script.continues else self._script.make()

    def _publish(self, value: Any) -> Stored:
        feed = self.feed
        return self._channels.appending.append_value(feed, self._script.encode(feed.name, value))

    def _ask(self) -> None:
        if self.feed.kind.on_demand:
            self._demand = self._channels.make_demand(self.feed)

    def _ended(self, reason: str) -> None:
        feed = self.feed
        if self._right.taken:
            return  # another worker reads the source
        if reason != "failed" or self._stopped:
            self._channels.ending.end(feed, reason)
            return
        steady = self._runtime.clock.now() - self._began >= STEADY
        self._failures = 1 if steady else self._failures + 1
        self._again = True
        feed.counters.restarts += 1
        _logger.warning(
            "the source of channel %.200r is to be started again",
            feed.name,
            extra=event("source.restarted", channel=feed.name, count=self._failures),
        )
        if not feed.kind.only_last and not self._script.continues:
            self._channels.sharing.restart(feed)
            self._ask()

    def _stop(self) -> None:
        self._right.cancel()
        self._close()

    def _close(self) -> None:
        if self._pump is not None:
            self._pump.stop()
        if self._pause is not None:
            self._pause.set()


def _choose_pause(failures: int) -> float:
    longest = min(PAUSE * 2 ** min(failures - 1, 10), PAUSE_AT_MOST)
    return max(random.uniform(0, longest), PAUSE_AT_LEAST)  # noqa: S311 - spreads load, no secret
