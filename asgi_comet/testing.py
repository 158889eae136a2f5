"""What users need to test their channels: a clock turned by hand, and waiting for listeners."""

from __future__ import annotations

import threading
from typing import Any

import anyio

from .channels import Channel
from .threads import LoopThread

__all__ = ["ManualClock", "wait_for_listeners"]


class ManualClock:
    """A clock that stands still until it is advanced. Thread-safe.

    Give it to `Comet(…, clock=clock)`; then no time-out comes before `advance`.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()
        self._sleepers: dict[anyio.Event, tuple[float, LoopThread]] = {}

    def now(self) -> float:
        """Return the seconds that it was advanced by so far."""
        return self._now

    async def sleep_until(self, moment: float) -> None:
        """Return once it was advanced that far."""
        loop = LoopThread()
        loop.enter()
        woken = anyio.Event()
        with self._lock:
            if moment <= self._now:
                woken.set()
            self._sleepers[woken] = moment, loop
        try:
            await woken.wait()
        finally:
            with self._lock:
                del self._sleepers[woken]

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake those whose sleep is over."""
        with self._lock:
            self._now += seconds
            due = [(w, loop) for w, (until, loop) in self._sleepers.items() if until <= self._now]
        for woken, loop in due:
            loop.run(woken.set)


def wait_for_listeners(channel: Channel[Any], count: int, timeout: float = 10.0) -> None:
    """Block until a channel has exactly that many listeners.

    For the thread of a test, while the server runs in another one. It looks at every coming and
    going, not at intervals.

    Args:
        channel: The channel.
        count: How many listeners to wait for.
        timeout: Seconds to wait at most.

    Raises:
        TimeoutError: There never were that many.
    """
    reached = threading.Event()

    def observe(listeners: int) -> None:
        if listeners == count:
            reached.set()

    feed = channel._feed
    feed.observers = (*feed.observers, observe)  # another tuple: the loop may go through this one
    try:
        observe(channel.listeners)
        if not reached.wait(timeout):
            raise TimeoutError(
                f"expected {count} listeners on channel {channel.id!r} within {timeout:g} s, "
                f"got {channel.listeners}"
            )
    finally:
        feed.observers = tuple(one for one in feed.observers if one is not observe)
