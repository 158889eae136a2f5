"""Draining: the server stops, so nobody waits any more.

Owns who is kept waiting beside the listeners of the fan-out: requests whose body is still coming.
Used only in the loop's thread.
"""

from __future__ import annotations

from .fanout import Fanout
from .feeds import Wake
from .interrupts import Interrupt

__all__ = ["Drain"]


class Drain:
    """Ends all waiting.

    Args:
        fanout: Whose listeners are answered as at their timeout.
    """

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self.begun: bool = False
        self.reading: set[Interrupt] = set()  # requests whose body is still coming

    def reset(self) -> None:
        """The server starts."""
        self.begun = False

    def begin(self) -> None:
        """Let nobody wait from now on. Idempotent."""
        self.begun = True
        self._fanout.end(Wake.TIMEOUT)
        for interrupt in list(self.reading):
            interrupt.fire()
