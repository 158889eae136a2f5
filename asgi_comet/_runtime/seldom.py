"""Rate-limited log lines, for events that clients can cause: one line a second, or as told.

Owns the rate. Must not know the texts.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping

__all__ = ["Seldom"]

PAUSE = 1.0  # seconds between two lines


class Seldom:
    """Logs at most one warning per pause, with the count of skipped ones. Thread-safe.

    Args:
        logger: Where the warnings go.
        now: Returns the time in seconds, since any moment.
        pause: How many seconds are between two warnings.
    """

    def __init__(
        self,
        logger: logging.Logger,
        now: Callable[[], float] = time.monotonic,
        pause: float = PAUSE,
    ) -> None:
        self._logger = logger
        self._now = now
        self._pause = pause
        self._lock = threading.Lock()
        self._next = -math.inf  # when the next line may be written
        self._left_out = 0

    def warning(self, text: str, *values: object, extra: Mapping[str, object]) -> None:
        """Log a warning, unless the pause after the last one is not over."""
        with self._lock:
            now = self._now()
            if now < self._next:
                self._left_out += 1
                return
            self._next = now + self._pause
            left_out, self._left_out = self._left_out, 0
        if left_out:
            text += f" ({left_out} more like this since the last line)"
        self._logger.warning(text, *values, extra=extra, stacklevel=2)
