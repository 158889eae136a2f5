"""The log lines about Redis: one a minute for each kind of trouble.

Owns the rate of lines, and the count of lost messages. Must not know why an operation failed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.log_events import event

__all__ = ["Notices"]

PAUSE = 60.0  # seconds between two lines of a kind
CHANNELS = 1000  # with lines of their own; others share one


class Notices:
    """The lines of one broker. The kind of a warning is the text before formatting.

    Args:
        logger: The logger of the lines.
        now: Returns the time in seconds.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float]) -> None:
        self._logger = logger
        self._now = now
        self._kinds: dict[str, Seldom] = {}  # the texts are constants of this package
        self._advised: set[str] = set()
        self._lost: dict[str, _Losses] = {}

    def warning(self, text: str, *values: object) -> None:
        """Log a warning, unless one of the same kind was logged within the last minute."""
        if text not in self._kinds:
            self._kinds[text] = Seldom(self._logger, self._now, PAUSE)
        told = event("broker.unavailable", reason=text % values)
        self._kinds[text].warning(text, *values, extra=told)

    def advise(self, text: str, *values: object) -> None:
        """Log a warning for an operator, once."""
        if text not in self._advised:
            self._advised.add(text)
            told = event("setup.advised", reason=text % values)
            self._logger.warning(text, *values, extra=told)

    def lost(self, name: str, count: int, why: object) -> None:
        """Count messages of a channel that were not stored, and log the count soon."""
        if name not in self._lost and len(self._lost) >= CHANNELS:
            name = "(others)"
        losses = self._lost.setdefault(name, _Losses())
        losses.count += count
        losses.why = str(why)

    def tell(self) -> None:
        """Log the counts that are due. Called about every second."""
        now = self._now()
        for name, losses in list(self._lost.items()):
            if now < losses.next:
                continue
            if not losses.count:
                del self._lost[name]
                continue
            messages = "1 message" if losses.count == 1 else f"{losses.count} messages"
            self._logger.error(
                "not stored: %s of channel %.200r: %s",
                messages,
                name,
                losses.why,
                extra=event("message.lost", channel=name, count=losses.count, reason=losses.why),
            )
            losses.count, losses.next = 0, now + PAUSE


class _Losses:
    """The losses of one channel since the last line."""

    __slots__ = ("count", "next", "why")

    def __init__(self) -> None:
        self.count = 0
        self.next = -math.inf  # the time of the next line, at the earliest
        self.why = ""
