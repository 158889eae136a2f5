"""How often something happened within the last hour.

Owns a count for each minute, so that the count of an hour is known without a timer. Must not know
what is counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["Recent"]

MINUTE = 60.0  # seconds
MINUTES = 60


class Recent:
    """The count of the last hour, to the minute. Used only in the loop's thread.

    Args:
        now: The time, in seconds of a clock that never goes back.
    """

    __slots__ = ("_minutes", "_now")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._minutes: deque[list[int]] = deque(maxlen=MINUTES + 1)  # the minute, and the count

    def add(self) -> None:
        """Count once."""
        minute = int(self._now() / MINUTE)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append([minute, 0])
        self._minutes[-1][1] += 1

    @property
    def total(self) -> int:
        """The count of the last hour."""
        oldest = int(self._now() / MINUTE) - MINUTES
        return sum(count for minute, count in self._minutes if minute >= oldest)
