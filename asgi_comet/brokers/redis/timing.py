"""The time of Redis, as far as a worker can tell it.

Owns how far the clock of Redis is ahead of this machine's. Must not know connections, nor why a
time is asked for.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from asgi_comet.brokers.redis.calls import Call

__all__ = ["RedisTime"]

REPLIES = 8  # that count: they are of less than a minute, since no two clocks run alike

SECOND = 1e6  # microseconds


class RedisTime:
    """Tells when, by the clock of Redis, an event of this worker was."""

    def __init__(self) -> None:
        # Between which numbers of microseconds the clock of Redis is ahead: by each reply, by all.
        self._ahead: deque[tuple[float, float]] = deque(maxlen=REPLIES)
        self._least, self._most = -math.inf, math.inf

    def ask(self) -> Call[None]:
        """Return the call that asks Redis for its time; send it at once."""
        return Call(("TIME",), partial(self._take, time.monotonic() * SECOND))

    def _take(self, asked: float, reply: Sequence[bytes]) -> None:
        seconds, further = map(int, reply)
        then = seconds * SECOND + further
        newest = then - time.monotonic() * SECOND, then + 1 - asked
        self._ahead.append(newest)
        if max(self._ahead)[0] > min(most for _, most in self._ahead):
            self._ahead = deque([newest], REPLIES)  # a clock was set, or one of them is slower
        self._least, self._most = max(self._ahead)[0], min(most for _, most in self._ahead)

    def tell(self, at: float) -> tuple[float, float]:
        """Return between which times of Redis, in microseconds, a time of this machine was.

        Args:
            at: The time in seconds, by the monotonic clock.
        """
        return at * SECOND + self._least, at * SECOND + self._most

    def forget(self) -> None:
        """Forget the replies: another Redis may answer from now on."""
        self._ahead.clear()
        self._least, self._most = -math.inf, math.inf
