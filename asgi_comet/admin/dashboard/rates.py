"""From totals, which workers count since they started, to what happened lately. Pure.

Owns what happens with the total of a worker that has started again. Must not know what is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

__all__ = ["Delays", "Rates"]


class Rates:
    """The rise of totals from one sample to the next."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._seconds: float | None = None
        self._before: dict[Hashable, int] = {}
        self._now: dict[Hashable, int] = {}

    def begin(self, now: float) -> None:
        """Begin a sample.

        Args:
            now: The time, in seconds.
        """
        self._seconds = None if self._at is None else now - self._at
        self._at, self._before, self._now = now, self._now, {}

    def rise(self, key: Hashable, total: int) -> int:
        """Return by how much a total has risen; nothing if it is new, or has begun anew."""
        self._now[key] = total
        return max(total - self._before.get(key, total), 0)

    def rate(self, risen: int) -> float | None:
        """Return how many that is in a second; `None` in the first sample."""
        return round(risen / self._seconds, 1) if self._seconds else None


class Delays:
    """How long something took lately, from histograms.

    Args:
        bounds: The upper bounds of a histogram, in seconds, ascending.
        samples: How many samples count.
    """

    def __init__(self, bounds: Sequence[float], samples: int) -> None:
        self._bounds = bounds
        self._samples: deque[Sequence[int]] = deque(maxlen=samples)

    def add(self, risen: Sequence[int]) -> None:
        """Add what the counts of a histogram have risen by in a sample; the last is unbounded."""
        self._samples.append(risen)

    def quantile(self, share: float) -> float | None:
        """Return in how many seconds a share of all was done, at most; `None` if there was nothing.

        What took longer than the last bound counts as that bound.
        """
        counts = [sum(column) for column in zip(*self._samples, strict=True)]
        left = share * sum(counts)
        if not left:
            return None
        for bound, count in zip(self._bounds, counts, strict=False):
            left -= count
            if left <= 0:
                return bound
        return self._bounds[-1]
