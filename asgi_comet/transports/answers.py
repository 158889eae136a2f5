"""What goes into one answer: for the transports that answer once.

Owns what each outcome makes of an answer. Must not know the bytes.
"""

from __future__ import annotations

from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.node.build import Hub
from asgi_comet.transports.reading import Budget, Choose, Gap, Run, read

__all__ = ["Taken", "recover", "send_off", "settle", "take"]


class Taken:
    """What a listener is told.

    Args:
        max_bytes: How many bytes may be written; `None` is no limit.

    Attributes:
        runs: Messages.
        gaps: Channels whose next message is no longer held.
        over: Channels that have ended, of which everything is told, or that are full for good.
        budget: How many bytes may still be written.
    """

    __slots__ = ("budget", "gaps", "over", "runs")

    def __init__(self, max_bytes: int | None = None) -> None:
        self.budget: Budget = Budget(max_bytes)
        self.runs: list[Run] = []
        self.gaps: list[Feed] = []
        self.over: list[Feed] = []


def take(listener: Listener, choose: Choose, max_bytes: int | None) -> Taken | None:
    """Read what came on all of a listener's channels at once.

    Args:
        listener: Whose channels are read.
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
    taken = Taken(max_bytes)
    for found in read(listener, choose, taken.budget):
        if isinstance(found, Run):
            taken.runs.append(found)
        else:
            (taken.gaps if isinstance(found, Gap) else taken.over).append(found.feed)
            taken.budget.left -= _notice_bytes(found.feed)
    return taken


def _notice_bytes(feed: Feed) -> int:
    """Return how many bytes an answer has for the end of a channel at most."""
    return 12 * len(feed.name) + 128  # a character of 4 bytes, percent-encoded; and all around it


def send_off(taken: Taken) -> None:
    """Note that an answer with positions is about to go: the client will say what it has."""
    for run in taken.runs:
        if run.feed.kind.may_fill:
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
        budget = taken.budget
        if budget.left <= 0 and taken.runs:  # it is found again with the next request
            break
        after, limit = listener.cursors.get(feed), max(budget.left, 1)
        run = None if after is None else await hub.broker.recover(feed, after, limit)
        if after is None or feed not in listener.cursors:  # it was forbidden meanwhile
            continue
        if run:
            rendered = choose(feed).render(feed.name, feed.history.epoch, run, limit)
            budget.left -= rendered.size
            taken.runs.append(Run(feed, after, rendered, rendered.data))
        else:
            taken.gaps.append(feed)
