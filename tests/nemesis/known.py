"""What the checker knows of channels, readers and publishes, and of times without a fault."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

Place: TypeAlias = tuple[str, int]

NEW = "new"
"""The epoch of a channel that does not exist yet."""

TOLD = 1.0  # seconds until a client tells what an answer held


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
        seen: When each was first seen.
        renewals: How many new epochs the faults so far explain.
        losses: When the store may have lost messages; their number is the age of the next epoch.
        cuts: How often the held messages were lost and the epoch was not.
        rows: By epoch and offset.
        ages: The same by age and offset.
        known: The newest offset of an epoch.
        stored: The newest offset of an epoch that a publisher knows.
        reached: The newest offset of an epoch that a client has, or has begun after.
        waiting: How many calls have not returned.
        over: Whether it has overflowed.
    """

    kind: str = "site"
    size: int = 10**9
    epochs: dict[str, int] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    renewals: int = 0
    losses: list[float] = field(default_factory=list)
    cuts: int = 0
    rows: dict[Place, Row] = field(default_factory=dict)
    ages: dict[tuple[int, int], Row] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    over: bool = False

    def reach(self, place: Place) -> None:
        epoch, offset = place
        self.reached[epoch] = max(offset, self.reached.get(epoch, 0))

    def lost_between(self, begin: float, end: float) -> bool:
        return any(begin <= at <= end for at in self.losses)

    def of_one_age(self, epoch: str, before: str) -> bool:
        """Tell whether no loss was between two epochs: one may be seen just after the loss."""
        seen = self.seen.get(before, 0.0)
        late = any(0 <= seen - lost < TOLD for lost in self.losses)
        return self.epochs[epoch] == self.epochs[before] and not late

    def is_later(self, one: str, other: str) -> bool:
        if other == NEW:
            return True
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
    error: str = ""


@dataclass(slots=True)
class Browser:
    """A session, as its cookie jar knows it.

    Attributes:
        user: The user; `?` while that is not certain.
        acting: Whether what is under way may close pages.
        changed: When it last did.
        doubtful: When a login was last under way, or did not return.
        moves: The number of each cookie, and when its answer came.
        forgotten: Whether the store was emptied since the user has logged in.
    """

    user: str = ""
    acting: bool = False
    changed: float = 0.0
    doubtful: float = 0.0
    moves: list[tuple[int, float]] = field(default_factory=list)
    forgotten: bool = False


@dataclass(slots=True)
class Connection:
    """A connection of a page.

    Attributes:
        at: When it began.
        answered: When the server first answered.
    """

    at: float
    browser: str
    user: str
    process: str
    generation: int
    answered: float | None = None


@dataclass(slots=True)
class Process:
    """A page.

    Attributes:
        born: When it was opened.
        seen: When a client last heard from the server.
        closing: Whether a client has asked to close it.
        over: Whether it has closed.
        called: The runs of workers in which its callback ran.
    """

    born: float
    seen: float = 0.0
    browser: str = ""
    readers: int = 1
    closing: bool = False
    over: bool = False
    called: set[str] = field(default_factory=set)
    connections: dict[str, Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen = self.seen or self.born


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
