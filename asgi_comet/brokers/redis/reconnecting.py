"""How fast a worker tries to connect again.

Owns the bound of five attempts a second, and the jitter that keeps workers apart.
Must not know the server.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from asgi_comet._runtime.clock import Clock

__all__ = ["Pace"]

LEAST = 0.05  # seconds
MOST = 2.0
APART = 0.2  # seconds between the beginnings of two attempts


class Pace:
    """Delays attempts, with growing pauses until one has succeeded.

    Args:
        clock: The clock.
        choose: Returns a random number between two.
    """

    def __init__(
        self,
        clock: Clock,
        choose: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._choose = choose
        self._failures = 0
        self._last = -math.inf

    def succeeded(self) -> None:
        """Start with short pauses again: a connection has served."""
        self._failures = 0

    async def wait(self) -> None:
        """Return when the next attempt may begin."""
        pause = 0.0
        if self._failures:
            pause = self._choose(LEAST, min(MOST, LEAST * 2**self._failures))
        self._failures = min(self._failures + 1, 10)
        begin = max(self._clock.now() + pause, self._last + APART)
        await self._clock.sleep_until(begin)
        self._last = self._clock.now()
