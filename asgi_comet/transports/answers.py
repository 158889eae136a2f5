"""What there is to tell a listener: shared by the transports that answer once.

Owns how much goes into one answer, and what each outcome makes of it. Must not know the bytes.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from asgi_comet.feeds import Encoder, Feed, Kind, Listener
from asgi_comet.hub import Hub

__all__ = ["Run", "Taken", "in_turn", "recover", "send_off", "settle", "take"]


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
    """

    __slots__ = ("gaps", "over", "runs")

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.gaps: list[Feed] = []
        self.over: list[Feed] = []


def take(listener: Listener, encode: Encoder, max_bytes: int | None) -> Taken | None:
    """Read what came on all of a listener's channels at once.

    Args:
        listener: Who reads.
        encode: How its transport writes messages.
        max_bytes: How many bytes to take, one message at least; what remains is for the next
            answer. `None` takes all.

    Returns:
        What it is told; `None` if there is nothing.
    """
    for feed, after in listener.cursors.items():
        if feed.history.top != after or feed.closed is not None:
            return _take(listener, encode, max_bytes)
    return None


def _take(listener: Listener, encode: Encoder, max_bytes: int | None) -> Taken:
    taken = Taken()
    left = max_bytes
    for feed, after in in_turn(listener, max_bytes):
        upto = after
        if feed.readable and feed.history.top != after:
            if left is not None and left <= 0:
                continue
            rendered = feed.render(encode, after, max_bytes)
            if rendered is None:
                taken.gaps.append(feed)
                continue
            data, upto = rendered.data, rendered.upto
            if left is not None:
                if taken.runs and len(data) > left:
                    continue
                left -= len(data)
            taken.runs.append(Run(feed, after, upto, data))
        if feed.closed is not None and (upto == feed.history.top or not feed.readable):
            taken.over.append(feed)
    return taken


def in_turn(listener: Listener, max_bytes: int | None) -> list[tuple[Feed, int]]:
    """All cursors; where not everything may fit, beginning anywhere, so that each gets its turn."""
    cursors = list(listener.cursors.items())
    if len(cursors) > 1 and max_bytes is not None:
        held = sum(feed.history.bytes for feed, after in cursors if feed.history.top != after)
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


async def recover(hub: Hub, listener: Listener, taken: Taken, encode: Encoder) -> None:
    """Ask the broker for what this worker no longer holds; what stays a gap is one."""
    for feed in list(taken.gaps):
        after = listener.cursors[feed]
        run = await hub.broker.recover(feed, after, hub.settings.answer_bytes)
        if feed not in listener.cursors:  # it was forbidden meanwhile
            taken.gaps.remove(feed)
        elif run:
            data = encode(feed.name, feed.history.epoch, run)
            taken.gaps.remove(feed)
            taken.runs.append(Run(feed, after, run[-1].offset, data))
