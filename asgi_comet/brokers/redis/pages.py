"""Pages: the parts of a log that the scripts return, as values.

Owns the form of a page. Must not know how a page is asked for, nor what is done with one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from asgi_comet.brokers.redis.replies import Gone, Reply, read_run
from asgi_comet.core.messages import Message

__all__ = ["Page", "read_page"]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a log.

    Attributes:
        epoch: The epoch.
        top: The offset of the newest message.
        first: The offset of the oldest message held, or of the next message.
        closed: The reason of the end, or `""`.
        owner: The worker that reads its source, or `""`.
        guard: The name of the function that authorises its readers, or `""`.
        aged: Whether messages in the log and in frames begin with their time.
        making: The token of the channel's making.
        began: The offset of the newest message when the epoch began.
        after: The offset before the run; `None` if messages after the reader's are not held.
        run: Messages with dense offsets from `after + 1` on; a part, if `after + len(run) < top`.
        state: Whether the reader gets the state of a keyed channel instead of a run.
        ages: How many seconds old each message of the run is; empty if not `aged`.
    """

    epoch: str
    top: int
    first: int
    closed: str
    owner: str
    guard: str
    aged: bool
    making: str
    began: int
    after: int | None = None
    run: tuple[Message, ...] = ()
    state: bool = False
    ages: tuple[float, ...] = field(default=(), compare=False)


def read_page(reply: Reply) -> Page | Gone:
    """Read a page of a log."""
    if reply[0] == b"unknown":
        return Gone()
    status, epoch, top, first, closed, owner, guard, now, making, began, *rest = reply
    aged = bool(now)
    after, rows = rest or (None, ())
    return Page(
        epoch.decode(),
        top,
        first,
        closed.decode(),
        owner.decode(),
        guard.decode(),
        aged,
        making.decode(),
        began,
        after,
        read_run(rest[0] + 1, rows, aged=aged) if rest else (),
        status == b"state",
        tuple(_read_age(row, now) for row in rows) if aged else (),
    )


def _read_age(row: bytes, now: int) -> float:
    """Read how many seconds old a message is, given the time of Redis in milliseconds."""
    return (now - int(row.partition(b" ")[0])) / 1000
