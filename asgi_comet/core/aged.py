"""A history that is bounded by age, too.

Owns when each of its messages was published, and that messages older than the bound are dropped.
Must not know what time it is: the caller passes the time. Must not know channels, listeners or any
framework.
Not thread-safe: the caller holds the lock of the channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asgi_comet.core.history import History
from asgi_comet.core.messages import Message

__all__ = ["AgedHistory", "Dated", "check_max_age", "make_history"]


@dataclass(frozen=True, slots=True)
class Dated(Message):
    """A message of a channel with `max_age`.

    Attributes:
        at: When the message was published, in seconds of the clock of this worker.
    """

    at: float


class AgedHistory(History):
    """A history that drops messages older than `max_age`; for the rest see `History`.

    A message without a time has the time of the last call of `age`.

    Args:
        size: The maximal count of messages, at least 1.
        max_bytes: The maximal sum of the encoded messages, in bytes.
        max_age: The maximal age of a message, in seconds.
        epoch: The incarnation of the channel; by default a fresh one.
    """

    __slots__ = ("_max_age", "_now")

    def __init__(
        self, *, size: int, max_bytes: int, max_age: float, epoch: str | None = None
    ) -> None:
        super().__init__(size=size, max_bytes=max_bytes, epoch=epoch)
        self._max_age = max_age
        self._now = -math.inf

    @property
    def max_age(self) -> float:
        """The maximal age of a message, in seconds."""
        return self._max_age

    def age(self, now: float) -> bool:
        """Take the current time, and drop the messages that are too old.

        Args:
            now: The time in seconds.

        Returns:
            Whether any message was dropped.
        """
        self._now = now
        oldest, first = now - self._max_age, self.first
        while self.first <= self.top and self._time_of(self.first) < oldest:
            self.drop_through(self.first)
        return self.first != first

    def _time_of(self, offset: int) -> float:
        message = self._messages[offset]
        assert isinstance(message, Dated)  # noqa: S101 - `_add` adds no other
        return message.at

    def _add(self, message: Message) -> None:
        if not isinstance(message, Dated):
            message = Dated(message.offset, message.data, self._now)
        super()._add(message)


def make_history(
    *, size: int, max_bytes: int, max_age: float | None, epoch: str | None = None
) -> History:
    """Make a history; `max_age=None` is no bound by age."""
    if max_age is None:
        return History(size=size, max_bytes=max_bytes, epoch=epoch)
    return AgedHistory(size=size, max_bytes=max_bytes, max_age=max_age, epoch=epoch)


def check_max_age(max_age: float | None) -> None:
    """Check the `max_age` option of a channel.

    Raises:
        ValueError: `max_age` is not a positive, finite number.
    """
    if max_age is None:
        return
    number: object = max_age  # callers without a type checker give anything
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0 < max_age < math.inf:
        raise ValueError(f"expected max_age to be a number of seconds, above 0, got {max_age!r}")
