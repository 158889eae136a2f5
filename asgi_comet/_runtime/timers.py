"""Timers: one task for all deadlines, of held requests, awaited outcomes and lingering channels.

A deadline costs a set entry in a bucket of `RESOLUTION` seconds, not a timer of the event loop.
Stopping a timer removes the entry, whereas cancelled timers of a loop pile up. Used only in the
loop's thread. Must not know the purpose of its timers.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.clock import Clock

__all__ = ["RESOLUTION", "Timeout", "Timer", "Timers"]

RESOLUTION = 0.1  # seconds: a timer expires at most this late, never early
BATCH = 256  # expirations between two turns of the loop: well under 50 ms
MINUTE = 60.0
FOREVER = 3600.0  # seconds that the sweeper sleeps without any timer


class Timer(ABC):
    """A deadline. A timer is in at most one bucket at a time."""

    __slots__ = ("_bucket",)

    def __init__(self) -> None:
        self._bucket: int | None = None

    @abstractmethod
    def expire(self) -> None:
        """Called once, in the loop's thread, after the deadline. Must not raise."""

    def shut_down(self) -> None:  # noqa: B027 - most timers do nothing at shutdown
        """Called when the server stops: end the wait for this timer. Must not raise."""


class Timeout(Timer):
    """A timer that calls a function.

    Args:
        function: Called in the loop's thread after the deadline. Must not raise.
        at_shutdown: Whether the function is called when the server stops, too.
    """

    __slots__ = ("_at_shutdown", "_function")

    def __init__(self, function: Callable[[], object], *, at_shutdown: bool = False) -> None:
        super().__init__()
        self._function = function
        self._at_shutdown = at_shutdown

    def expire(self) -> None:
        """Call the function."""
        self._function()

    def shut_down(self) -> None:
        """Call the function now, if required."""
        if self._at_shutdown:
            self._function()


class _Worst:
    """The largest value of this minute, and of the minute before. Read in any thread."""

    def __init__(self) -> None:
        self._state = 0, 0.0, 0.0  # which minute this is, the value of the one before, and its own

    def note(self, value: float, now: float) -> None:
        minute = int(now / MINUTE)
        before, largest = self._at(minute)
        self._state = minute, before, max(largest, value)

    def of(self, now: float) -> float:
        return max(self._at(int(now / MINUTE)))

    def _at(self, minute: int) -> tuple[float, float]:
        last, before, largest = self._state
        if minute == last:
            return before, largest
        return (largest if minute == last + 1 else 0.0), 0.0


class Timers:
    """The timers, and the sweeper that expires them.

    Args:
        clock: The clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.now
        self._buckets: dict[int, set[Timer]] = {}
        self._order: list[int] = []  # a heap of the buckets' numbers
        self._nap: anyio.CancelScope | None = None
        self._wake_at = 0
        self._lag = _Worst()
        self.stopping: bool = False  # whether the server is stopping

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    @property
    def lag(self) -> float:
        """How late the timers were at most, in the last one to two minutes, in seconds.

        What keeps the event loop makes them late.
        """
        return self._lag.of(self._now())

    def start(self, timer: Timer, seconds: float) -> None:
        """Start a timer that expires after that many seconds; a running timer is restarted."""
        if timer._bucket is not None:
            self.stop(timer)
        number = int((self._now() + seconds) / RESOLUTION) + 1
        timer._bucket = number
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
            heapq.heappush(self._order, number)
            if self._nap is not None and number < self._wake_at:
                self._nap.cancel()
        bucket.add(timer)
        if self.stopping:
            timer.shut_down()

    def stop(self, timer: Timer) -> None:
        """Stop a timer, if it is running."""
        if timer._bucket is not None:
            self._buckets[timer._bucket].discard(timer)
            timer._bucket = None

    async def wait(
        self, event: anyio.Event, seconds: float, *, until_shutdown: bool = False
    ) -> None:
        """Wait for an event, which is set after that many seconds at the latest.

        Args:
            event: The event.
            seconds: The time limit.
            until_shutdown: Whether the event is set when the server stops, too.
        """
        timer = Timeout(event.set, at_shutdown=until_shutdown)
        self.start(timer, seconds)
        try:
            await event.wait()
        finally:
            self.stop(timer)

    def shut_down(self) -> None:
        """Shut down: settle the timers that endpoints may be awaiting."""
        self.stopping = True
        for timer in [timer for bucket in self._buckets.values() for timer in bucket]:
            timer.shut_down()

    async def run(self) -> None:
        """Sweep until cancelled. Only this task expires timers."""
        while True:
            await self._sweep()
            self._wake_at = self._order[0] if self._order else int(1e18)
            with anyio.CancelScope() as self._nap:
                forever = self._clock.now() + FOREVER
                await self._clock.sleep_until(min(self._wake_at * RESOLUTION, forever))
            self._nap = None

    async def _sweep(self) -> None:
        while self.expire(BATCH):
            await checkpoint()

    def expire(self, most: int) -> bool:
        """Expire timers that are due.

        Args:
            most: How many at most.

        Returns:
            Whether others are due as well.
        """
        now = self._clock.now() / RESOLUTION
        if self._order:
            self._lag.note((now - self._order[0]) * RESOLUTION, now * RESOLUTION)
        while self._order and self._order[0] <= now:
            bucket = self._buckets[self._order[0]]
            while bucket:
                if not most:
                    return True
                most -= 1
                timer = bucket.pop()
                timer._bucket = None
                timer.expire()
            del self._buckets[heapq.heappop(self._order)]
        return False
