"""One task for every deadline there is: held requests, awaited outcomes, lingering channels.

A deadline costs a set entry in a bucket of `RESOLUTION` seconds, not a timer of the event loop,
and forgetting it leaves nothing but the bucket, where cancelled timers of a loop would pile up.
Used only in the loop's thread. Must not know what its timers are for.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod

import anyio
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.clock import Clock

__all__ = ["RESOLUTION", "Timer", "Timers"]

RESOLUTION = 0.1  # seconds: a timer expires at most this much late, never early
BATCH = 256  # expirations between two turns of the loop: keeps a stretch well under 50 ms
FOREVER = 3600.0  # seconds: how long the sweeper sleeps when there is nothing to wait for


class Timer(ABC):
    """Something that expires. It is in at most one bucket at a time."""

    __slots__ = ("_bucket",)

    def __init__(self) -> None:
        self._bucket: int | None = None

    @abstractmethod
    def expire(self) -> None:
        """Called once, in the loop's thread, when the deadline has passed. Must not raise."""

    def hasten(self) -> None:  # noqa: B027 - most can wait
        """The server stops: let nobody wait for this any more. Must not raise."""


class Timers:
    """The deadlines, and the sweeper that sees them pass.

    Args:
        clock: What time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.now
        self._buckets: dict[int, set[Timer]] = {}
        self._order: list[int] = []  # a heap of the buckets' numbers
        self._nap: anyio.CancelScope | None = None
        self._wake_at = 0
        self.hastened: bool = False  # whether the server stops

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def start(self, timer: Timer, seconds: float) -> None:
        """Let a timer expire after that many seconds; one that runs already is set anew."""
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
        if self.hastened:
            timer.hasten()

    def stop(self, timer: Timer) -> None:
        """Forget a timer; nothing happens if it does not run."""
        if timer._bucket is not None:
            self._buckets[timer._bucket].discard(timer)
            timer._bucket = None

    def hasten(self) -> None:
        """The server stops: what holds that up, for an endpoint awaits it, ends now."""
        self.hastened = True
        for timer in [timer for bucket in self._buckets.values() for timer in bucket]:
            timer.hasten()

    async def run(self) -> None:
        """Sweep until cancelled: the one task that expires timers."""
        while True:
            await self._sweep()
            self._wake_at = self._order[0] if self._order else int(1e18)
            with anyio.CancelScope() as self._nap:
                forever = self._clock.now() + FOREVER
                await self._clock.sleep_until(min(self._wake_at * RESOLUTION, forever))
            self._nap = None

    async def _sweep(self) -> None:
        now = self._clock.now() / RESOLUTION
        done = 0
        while self._order and self._order[0] <= now:
            number = heapq.heappop(self._order)
            bucket = self._buckets[number]
            while bucket:
                timer = bucket.pop()
                timer._bucket = None
                timer.expire()
                done += 1
                if done % BATCH == 0:
                    await checkpoint()
            del self._buckets[number]
