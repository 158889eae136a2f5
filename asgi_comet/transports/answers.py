"""What there is to tell a listener: shared by the transports that answer once.

Owns how much goes into one answer, and what each outcome makes of it. Must not know the bytes.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import NamedTuple

from asgi_comet.feeds import Encoder, Feed, Kind, Listener
from asgi_comet.hub import Hub

__all__ = ["Choose", "Run", "Taken", "in_turn", "recover", "send_off", "settle", "take"]

Choose = Callable[[Feed], Encoder]
"""Chooses what writes messages of a channel."""

AROUND = 4096  # bytes around the data of an event, where its id has the positions of many channels


class Run(NamedTuple):
    """Messages of one channel in an answer: `after + 1 … upto`."""

    feed: Feed
    after: int
    upto: int
    data: bytes


class Taken:
    """What a listener is told.

    Attributes:
        runs: Messages.
        gaps: Channels whose next message is no longer held.
        over: Channels that have ended, of which everything is told, or that are full for good.
        left: How many bytes may still be written; below 1 nothing more goes into the answer.
    """

    __slots__ = ("gaps", "left", "over", "runs")

    def __init__(self, left: int = sys.maxsize) -> None:
        self.left: int = left
        self.runs: list[Run] = []
        self.gaps: list[Feed] = []
        self.over: list[Feed] = []


def take(listener: Listener, choose: Choose, max_bytes: int | None) -> Taken | None:
    """Read what came on all of a listener's channels at once.

    Args:
        listener: Who reads.
        choose: How its transport writes messages.
        max_bytes: How many bytes may be written, one message at least; what remains is for the
            next answer. `None` takes all.

    Returns:
        What it is told; `None` if there is nothing.
    """
    for feed, after in listener.cursors.items():
        if feed.history.top != after or feed.closed is not None:
            return _take(listener, choose, max_bytes)
    return None


def _take(listener: Listener, choose: Choose, max_bytes: int | None) -> Taken:
    taken = Taken() if max_bytes is None else Taken(max_bytes)
    for feed, after in in_turn(listener, max_bytes):
        if taken.left <= 0:  # what is not told now is found again with the next request
            break
        upto = after
        if feed.readable and feed.history.top != after:
            rendered = feed.render(choose(feed), after, max_bytes)
            if rendered is None:
                taken.gaps.append(feed)
                taken.left -= _notice_bytes(feed)
                continue
            if rendered.size > taken.left and taken.runs:
                break
            upto = rendered.upto
            taken.left -= rendered.size
            taken.runs.append(Run(feed, after, upto, rendered.data))
        if feed.closed is not None and (upto == feed.history.top or not feed.readable):
            taken.over.append(feed)
            taken.left -= _notice_bytes(feed)
    return taken


def _notice_bytes(feed: Feed) -> int:
    """Return how many bytes an answer has for the end of a channel at most."""
    return 12 * len(feed.name) + 128  # a character of 4 bytes, percent-encoded; and all around it


def in_turn(listener: Listener, max_bytes: int | None) -> list[tuple[Feed, int]]:
    """All cursors; where not everything may fit, beginning anywhere, so that each gets its turn."""
    cursors = list(listener.cursors.items())
    if len(cursors) > 1 and max_bytes is not None:
        held = 0
        for feed, after in cursors:
            history = feed.history
            if history.top != after:
                held += history.bytes + AROUND * (history.top - after)
        if held > max_bytes:
            start = random.randrange(len(cursors))  # noqa: S311 - fairness, no secret
            return cursors[start:] + cursors[:start]
    return cursors


def send_off(taken: Taken) -> None:
    """Note that an answer with positions is about to go: the client will say what it has."""
    for run in taken.runs:
        if run.feed.kind is Kind.PROCESS:
            run.feed.mark_sent(run.upto)
        run.feed.outcomes.send(run.after, run.upto)


def settle(listener: Listener, handed: bool) -> None:
    """Note whether a listener got its answer."""
    for feed in listener.cursors:
        if handed:
            feed.outcomes.excuse(listener)
        else:
            feed.outcomes.lose(listener)


async def recover(hub: Hub, listener: Listener, taken: Taken, choose: Choose) -> None:
    """Ask the broker for what this worker no longer holds; what stays a gap is one."""
    gaps, taken.gaps = taken.gaps, []
    for feed in gaps:
        if taken.left <= 0 and taken.runs:  # it is found again with the next request
            break
        after, limit = listener.cursors.get(feed), max(taken.left, 1)
        run = None if after is None else await hub.broker.recover(feed, after, limit)
        if after is None or feed not in listener.cursors:  # it was forbidden meanwhile
            continue
        if run:
            rendered = choose(feed).render(feed.name, feed.history.epoch, run, limit)
            taken.left -= rendered.size
            taken.runs.append(Run(feed, after, rendered.upto, rendered.data))
        else:
            taken.gaps.append(feed)
