"""The changes that a worker has lately heard of.

Owns for how long a worker remembers them: a reply that was asked before a change is void, and a
Redis that has lost data is told of the changes again. Must not know how a change is heard.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from asgi_comet._runtime.clock import Clock

__all__ = ["REMEMBERED", "REPEATED", "Lately"]

T = TypeVar("T")

REMEMBERED = 600.0  # seconds
REPEATED = 0.9 * REMEMBERED  # seconds in which Redis surely recognises a repeated change


class Lately(Generic[T]):
    """Values by name, forgotten after ten minutes.

    Args:
        clock: The clock.

    Attributes:
        number: How many values were ever added.
    """

    def __init__(self, clock: Clock) -> None:
        self.number: int = 0
        self._clock = clock
        self._values: dict[str, tuple[float, int, T]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def add(self, name: str, value: T) -> None:
        """Remember a value."""
        self.number += 1
        self._values.pop(name, None)
        self._values[name] = self._clock.now(), self.number, value

    def is_newer(self, name: str, number: int) -> bool:
        """Return whether the value of a name was added when `number` values had been."""
        return name in self._values and self._values[name][1] > number

    def since(self, seconds: float) -> list[tuple[str, T]]:
        """Return the values of the last seconds, the oldest first."""
        after = self._clock.now() - seconds
        return [(name, value) for name, (at, _, value) in self._values.items() if at >= after]

    def forget(self) -> None:
        """Forget old values. Called every minute while the worker is connected."""
        over = self._clock.now() - REMEMBERED
        while self._values:
            name = next(iter(self._values))
            if self._values[name][0] > over:
                return
            del self._values[name]
