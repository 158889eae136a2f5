"""What there is to tell a listener: messages, gaps and ends, for every transport.

Owns in which order the channels of a listener are read, and how much goes into one answer or one
write. Must not know connections, or the bytes around what it yields.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

from asgi_comet.channels.feed import Encoder, Feed, Listener, Rendered

__all__ = ["Budget", "Choose", "End", "Gap", "Run", "read"]

Choose = Callable[[Feed], Encoder]
"""Chooses what writes the messages of a channel now."""

AROUND = 4096  # bytes around the data of an event, where its id has the positions of many channels


class Run(NamedTuple):
    """Messages of one channel: those after `after`, up to and with `rendered.upto`.

    Attributes:
        feed: The channel.
        after: The offset before the first of them.
        rendered: What is written, as listeners at the same place share it.
        data: What is written for this one.
    """

    feed: Feed
    after: int
    rendered: Rendered
    data: Any

    @property
    def upto(self) -> int:
        """The offset of the last of them."""
        return self.rendered.upto


class Gap(NamedTuple):
    """The next message of a channel is not held here."""

    feed: Feed


class End(NamedTuple):
    """A channel has ended, of which everything is told; or it is full for good."""

    feed: Feed


class Budget:
    """How many bytes may be written.

    Args:
        limit: As many, one message at least; `None` is no limit.
        portion: As many of one channel, before an encoder makes them longer; `None` is the limit.

    Attributes:
        left: How many are left; below 1 nothing more is written.
    """

    __slots__ = ("left", "limit", "portion")

    def __init__(self, limit: int | None, portion: int | None = None) -> None:
        self.limit: int = sys.maxsize if limit is None else limit
        self.portion: int | None = limit if portion is None else portion
        self.left: int = self.limit

    def fits(self, size: int) -> bool:
        """Tell whether something may be written now; the first thing may in any case."""
        return size <= self.left or self.left >= self.limit


def read(
    listener: Listener, choose: Choose, budget: Budget, passed: Container[Feed] = ()
) -> Iterator[Run | Gap | End]:
    """Read what came on the channels of a listener, each at most once.

    What does not fit is found again by the next answer or write. The caller takes from the budget
    what gaps and ends cost; runs are taken from it here.

    Args:
        listener: Whose channels are read. It may be changed between two steps.
        choose: Chooses what writes the messages of a channel, when the channel's turn has come.
        budget: How much may be written.
        passed: Channels of which no messages are read.
    """
    for feed, after in _in_turn(listener, budget):
        if budget.left <= 0:
            return
        upto = after
        if feed.readable and feed.history.top != after and feed not in passed:
            encode = choose(feed)
            begun = feed.render(encode.shared, after, budget.portion)
            if begun is None:
                yield Gap(feed)
                continue
            data, size, rendered = encode.end(begun, feed.history.epoch, budget.left)
            if not budget.fits(size):
                return
            budget.left -= size
            upto = rendered.upto
            yield Run(feed, after, rendered, data)
        if feed.closed is not None and (upto == feed.history.top or not feed.readable):
            yield End(feed)


def _in_turn(listener: Listener, budget: Budget) -> list[tuple[Feed, int]]:
    """All cursors; where not everything may fit, beginning anywhere, so that each gets its turn."""
    cursors = list(listener.cursors.items())
    if len(cursors) > 1 and budget.limit != sys.maxsize:
        held = 0
        for feed, after in cursors:
            history = feed.history
            if history.top != after:
                held += history.bytes + AROUND * (history.top - after)
        if held > budget.left:
            start = random.randrange(len(cursors))  # noqa: S311 - fairness, no secret
            return cursors[start:] + cursors[:start]
    return cursors
