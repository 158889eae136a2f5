"""What the checker knows of channels, readers and publishes, and of times without a fault."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """What is against the promise.

    Attributes:
        invariant: `I1` and so on.
        at: When, on the clock of the history.
        text: What happened.
    """

    invariant: str
    at: float
    text: str


@dataclass(slots=True)
class Row:
    """A message in the log: the first sight of it."""

    id: str
    sent: float
    fence: str | None = None


@dataclass(slots=True)
class Channel:
    """What is known of a channel.

    Attributes:
        epochs: In the order of their first sight, each with its age.
        renewals: How many new epochs the faults so far explain.
        losses: When the store may have lost messages; their number is the age of the next epoch.
        cuts: How often the held messages were lost and the epoch was not.
        rows: By epoch and offset.
        ages: The same by age and offset.
        known: The newest offset of an epoch.
    """

    kind: str = "site"
    size: int = 10**9
    epochs: dict[str, int] = field(default_factory=dict)
    renewals: int = 0
    losses: list[float] = field(default_factory=list)
    cuts: int = 0
    rows: dict[Place, Row] = field(default_factory=dict)
    ages: dict[tuple[int, int], Row] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)

    def lost_between(self, begin: float, end: float) -> bool:
        return any(begin <= at <= end for at in self.losses)

    def is_later(self, one: str, other: str) -> bool:
        order = list(self.epochs)
        return order.index(one) > order.index(other)


@dataclass(slots=True)
class Reader:
    """A client on a channel.

    Attributes:
        place: The last message that it has; `None` before it was told.
        since: From when on messages must reach it soon.
        cuts: How often it was told `full` within an epoch, without having been trimmed.
    """

    place: Place | None = None
    since: float = 0.0
    cuts: int = 0


@dataclass(slots=True)
class Publish:
    """A call of a publisher, and what became of it."""

    at: float
    channel: str
    run: str
    done: float | None = None
    position: Place | None = None
    failed: bool = False
    maybe: bool = False


class Calm:
    """The time without faults.

    Args:
        faults: The begin and the end of each; they may overlap.
    """

    def __init__(self, faults: Iterable[tuple[float, float]]) -> None:
        spans: list[tuple[float, float]] = []
        for span in sorted(faults):
            if spans and span[0] <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(span[1], spans[-1][1])
            else:
                spans.append(span)
        self._spans = spans
        self._begins = [begin for begin, _ in spans]
        self._covered = [0.0, *accumulate(end - begin for begin, end in spans)]

    def between(self, begin: float, end: float) -> float:
        """Return how many seconds between two times are not of a fault."""
        return end - begin - self._before(end) + self._before(begin)

    def _before(self, at: float) -> float:
        """Return how many seconds before a time are of a fault."""
        index = bisect_right(self._begins, at)
        if not index:
            return 0.0
        begin, end = self._spans[index - 1]
        return self._covered[index - 1] + min(at, end) - begin


def parse(position: str) -> Place:
    epoch, _, offset = position.rpartition(".")
    return epoch, int(offset)


def show(place: Place | None) -> str:
    return "nowhere" if place is None else f"{place[0]}.{place[1]}"


def split(id_: str) -> tuple[str, int]:
    publisher, _, number = id_.rpartition(":")
    return publisher, int(number)
