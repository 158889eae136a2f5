"""The content of one answer, for transports that answer once.

Owns how an answer sets the outcomes of its messages. Must not know the bytes.
"""

from __future__ import annotations

from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.node.build import Node
from asgi_comet.transports.counting import delivered
from asgi_comet.transports.postponing import not_yet
from asgi_comet.transports.reading import Budget, Choose, Gap, Run, read

__all__ = ["Taken", "recover", "send_off", "settle", "take"]


class Taken:
    """The content of an answer.

    Args:
        max_bytes: The limit in bytes; `None` is no limit.

    Attributes:
        runs: The messages.
        gaps: Channels whose next message is no longer held.
        ended: Channels that have ended and are fully read, or that are full.
        budget: The bytes that may still be written.
    """

    __slots__ = ("budget", "ended", "gaps", "runs")

    def __init__(self, max_bytes: int | None = None) -> None:
        self.budget: Budget = Budget(max_bytes)
        self.runs: list[Run] = []
        self.gaps: list[Feed] = []
        self.ended: list[Feed] = []


def take(listener: Listener, choose: Choose, max_bytes: int | None) -> Taken | None:
    """Read the news on all channels of a listener.

    Args:
        listener: The listener.
        choose: Returns the encoder of a channel.
        max_bytes: The limit in bytes; at least one message is read, and the rest is for the next
            answer. `None` reads everything.

    Returns:
        The content of the answer; `None` if there is nothing.
    """
    for feed, after in listener.cursors.items():
        if feed.history.top != after or feed.closed is not None:
            return _take(listener, choose, max_bytes)
    return None


def _take(listener: Listener, choose: Choose, max_bytes: int | None) -> Taken:
    taken = Taken(max_bytes)
    for found in read(listener, choose, taken.budget):
        if isinstance(found, Run):
            taken.runs.append(found)
        else:
            (taken.gaps if isinstance(found, Gap) else taken.ended).append(found.feed)
            taken.budget.left -= _notice_bytes(found.feed)
    return taken


def _notice_bytes(feed: Feed) -> int:
    """Return the maximal size of the notice that a channel has ended, in bytes."""
    return 12 * len(feed.name) + 128  # 4 bytes a character, percent-encoded; and the rest


def send_off(node: Node, listener: Listener, taken: Taken) -> None:
    """Record the messages of an answer with positions, which the client will acknowledge."""
    delivered(node, listener, taken.runs)
    for run in taken.runs:
        if run.feed.kind.may_fill:
            run.feed.mark_sent(run.upto)
        run.feed.outcomes.send(run.after, run.upto)


def settle(listener: Listener, handed: bool) -> None:
    """Record whether the server took the answer of a listener."""
    for feed in listener.cursors:
        if handed:
            feed.outcomes.excuse(listener)
        else:
            feed.outcomes.lose(listener)


async def recover(node: Node, listener: Listener, taken: Taken, choose: Choose) -> None:
    """Read the messages of gaps from the broker; gaps that remain are kept.

    Raises:
        TryAgain: The broker cannot be reached.
    """
    gaps, taken.gaps = taken.gaps, []
    for feed in gaps:
        budget = taken.budget
        if budget.left <= 0 and taken.runs:  # the next request finds the gap again
            break
        after, limit = listener.cursors.get(feed), max(budget.left, 1)
        with not_yet():
            run = None if after is None else await node.broker.recover(feed, after, limit)
        if after is None or feed not in listener.cursors:  # forbidden meanwhile
            continue
        if run:
            chunk = choose(feed).render(feed.name, feed.history.epoch, run, limit)
            budget.left -= chunk.size
            taken.runs.append(Run(feed, after, chunk, chunk.data, chunk.size))
        else:
            taken.gaps.append(feed)
