"""Patience: how long messages and scripts wait for Redis, and how they fail after that.

Owns the time limit, and the error of an entry that is given up. Must not know connections, nor
which entry is under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.appends import Append
from asgi_comet.brokers.redis.queueing import Entry, Queue
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Patience"]

OnLost = Callable[[Sequence[Append], BrokerUnavailable], None]
"""Takes messages that are given up, and the reason."""


class Patience:
    """The patience of one worker with one primary. Call in the loop's thread.

    Args:
        queue: Counts the messages.
        seconds: How many seconds an entry waits at most.
        clock: The clock.

    Attributes:
        seconds: How many seconds an entry waits at most.
        trouble: Returns why Redis is away; `""` if Redis is well.
        on_lost: Takes the messages that are given up, and the reason.
    """

    def __init__(self, queue: Queue, seconds: float, clock: Clock) -> None:
        self.seconds: float = seconds
        self.trouble: Callable[[], str] = str
        self.on_lost: OnLost = _forget
        self._queue = queue
        self._clock = clock
        self._began = -math.inf  # no message waited for Redis before

    def begin(self) -> None:
        """Start the time limits of waiting messages."""
        self._began = self._clock.now()

    @property
    def ended(self) -> float:
        """The time before which no entry that may still wait was queued."""
        over = self._clock.now() - self.seconds
        return over if over > self._began else -math.inf

    def fail(self, entries: Sequence[Entry], *, maybe_stored: bool, why: str = "") -> None:
        """Fail entries that are given up, and report the messages among them as lost.

        Args:
            entries: The entries, which have left the queue; a message that is settled stays so.
            maybe_stored: Whether Redis may have stored the entries.
            why: The reason; by default, that Redis was away.
        """
        trouble = self.trouble()
        away = f"Redis was away for {self.seconds:g} s{trouble and ': '}{trouble}"
        error = BrokerUnavailable(why or away, maybe_stored=maybe_stored)
        for one in entries:
            if not isinstance(one, Append):
                one.fail(error)
        lost = [one for one in entries if isinstance(one, Append) and one.outcome is None]
        self.lose(lost, error)

    def lose(self, appends: Sequence[Append], error: BrokerUnavailable) -> None:
        """Settle messages that are lost, and report the loss."""
        self._queue.settled(appends)
        for append in appends:
            append.settle(error)
        if appends:
            self.on_lost(appends, error)


def _forget(appends: Sequence[Append], error: BrokerUnavailable) -> None:
    """Do nothing about messages that are given up."""
