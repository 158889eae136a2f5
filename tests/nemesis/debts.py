"""Which readers are to be told `full` by when, after a promotion while nothing is published.

Owns when a debt is paid, and that its time stands still while a client rests. Must not know why
readers are owed anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

Key: TypeAlias = tuple[str, str]
"""A client and a channel."""


class Debts:
    """What readers are owed: to be told of another epoch than the one where they are."""

    def __init__(self) -> None:
        self._owed: dict[Key, tuple[float, str]] = {}
        self._rests: dict[str, float] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._owed))

    def owe(self, epochs: Mapping[Key, str], now: float, within: float) -> None:
        """Take note of readers and their epochs."""
        self._owed |= {key: (now + within, epoch) for key, epoch in epochs.items()}
        self._rests = dict.fromkeys(self._rests, now)

    def rest(self, client: str, now: float) -> None:
        """Take note that another connection of its page reads, so that the client stays away."""
        self._rests.setdefault(client, now)

    def connect(self, client: str, now: float) -> None:
        """Give a client that has rested the time that it was away."""
        rested = now - self._rests.pop(client, now)
        for key, (by, epoch) in self._owed.items():
            if key[0] == client:
                self._owed[key] = by + rested, epoch

    def forget(self, key: Key) -> None:
        self._owed.pop(key, None)

    def pay(self, key: Key, epoch: str, now: float) -> float:
        """Take note of where a reader is; return how many seconds late it was told of it."""
        by, before = self._owed.get(key, (now, epoch))
        if epoch == before:
            return 0.0
        del self._owed[key]
        return max(now - by, 0.0)

    def unpaid(self) -> Iterator[tuple[Key, float, str]]:
        """Return who was never told, by when that was to be, and of the end of which epoch."""
        return ((key, by, epoch) for key, (by, epoch) in self._owed.items())
