"""Reading the channels of a listener: messages, gaps and ends, for every transport.

Owns the order in which the channels of a listener are read, and how much goes into one answer or
write. Must not know connections, or the bytes around the items.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

from asgi_comet.channels.feed import Chunk, Encoder, Feed, Listener

__all__ = ["Budget", "Choose", "End", "Gap", "Run", "read"]

Choose = Callable[[Feed], Encoder]
"""Return the current encoder of a channel."""

AROUND = 4096  # bytes around the data of an event whose id has many positions


class Run(NamedTuple):
    """Messages of one channel: after `after`, up to and including `chunk.upto`.

    Attributes:
        feed: The channel.
        after: The offset before the first message.
        chunk: The encoded messages, shared by listeners at the same place.
        data: The bytes or text for this listener.
        size: The bytes that these take in an answer or a write.
    """

    feed: Feed
    after: int
    chunk: Chunk
    data: Any
    size: int

    @property
    def upto(self) -> int:
        """The offset of the last message."""
        return self.chunk.upto


class Gap(NamedTuple):
    """A channel whose next message is not held in this worker."""

    feed: Feed


class End(NamedTuple):
    """A channel that has ended and is fully read, or that is full."""

    feed: Feed


class Budget:
    """The bytes that may still be written.

    Args:
        limit: The limit in bytes; at least one message is written. `None` is no limit.
        portion: The limit for encoding one channel, before ids are added; `None` is `limit`.

    Attributes:
        left: The bytes left; below 1 nothing more is written.
    """

    __slots__ = ("left", "limit", "portion")

    def __init__(self, limit: int | None, portion: int | None = None) -> None:
        self.limit: int = sys.maxsize if limit is None else limit
        self.portion: int | None = limit if portion is None else portion
        self.left: int = self.limit

    def fits(self, size: int) -> bool:
        """Return whether an item may be written now. The first item always may."""
        return size <= self.left or self.left >= self.limit


def read(
    listener: Listener, choose: Choose, budget: Budget, passed: Container[Feed] = ()
) -> Iterator[Run | Gap | End]:
    """Read the news on the channels of a listener, each channel at most once.

    Items that do not fit are found again by the next answer or write. The caller subtracts the
    bytes of gaps and ends from the budget; runs are subtracted here.

    Args:
        listener: The listener. May change between two items.
        choose: Returns the encoder of a channel, when that channel is read.
        budget: The limit in bytes.
        passed: Channels whose messages are skipped.
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
            data, size, chunk = encode.end(begun, feed.history.epoch, budget.left)
            if not budget.fits(size):
                return
            budget.left -= size
            upto = chunk.upto
            yield Run(feed, after, chunk, data, size)
        if feed.closed is not None and (upto == feed.history.top or not feed.readable):
            yield End(feed)


def _in_turn(listener: Listener, budget: Budget) -> list[tuple[Feed, int]]:
    """Return all cursors; from a random one on if not all may fit, for fairness."""
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
