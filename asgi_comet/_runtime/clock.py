"""The clock of the package, which tests can replace."""

from __future__ import annotations

import time
from typing import Protocol

import anyio

__all__ = ["Clock", "ExchangeableClock", "MonotonicClock"]


class Clock(Protocol):
    """Monotonic time in seconds. `now` is thread-safe."""

    def now(self) -> float:
        """Return the seconds since some fixed moment; never decreases."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Wait until `now()` has that value; at least a checkpoint."""
        ...


class MonotonicClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.monotonic()

    async def sleep_until(self, moment: float) -> None:
        """Wait until that moment."""
        await anyio.sleep(max(moment - time.monotonic(), 0))


class ExchangeableClock:
    """The one clock that all parts read; the test kit exchanges what it shows.

    Attributes:
        source: The clock that it shows. Exchanged only while no lifespan runs.
    """

    def __init__(self, source: Clock) -> None:
        self.source: Clock = source

    def now(self) -> float:
        """Return the time of the source."""
        return self.source.now()

    async def sleep_until(self, moment: float) -> None:
        """Wait until that moment of the source."""
        await self.source.sleep_until(moment)
