"""Messages on their way to Redis, and the batches of messages.

Owns the outcome of each message. Must not know connections, nor when a batch is sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence

from asgi_comet.brokers.logs import Fenced
from asgi_comet.brokers.redis.calls import Call, Group, Item, Log
from asgi_comet.brokers.redis.replies import AppendReply, Outcome, Refused, Stored
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, ChannelFull, CometError
from asgi_comet.position import Position

__all__ = ["Append", "Batch", "error_of"]


class Append:
    """A message on its way; a call waits until the message is stored, and returns the position.

    Attributes:
        log: The channel.
        item: The message.
        fence: The fence of the worker that reads the channel's source; `""` of other publishers.
        since: When the message was published.
        patient: Whether the broker never gives up the message, because a source yielded it.
        outcome: The position or the error; `None` as long as the message is on its way.
        on_stored: Called with the position, once the message is stored.
    """

    __slots__ = ("_waiting", "fence", "item", "log", "on_stored", "outcome", "patient", "since")

    def __init__(self, log: Log, item: Item, fence: str, since: float, *, patient: bool) -> None:
        self.log: Log = log
        self.item: Item = item
        self.fence: str = fence
        self.since: float = since
        self.patient: bool = patient
        self.outcome: Position | CometError | None = None
        self.on_stored: Callable[[Position], None] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def size(self) -> int:
        """How many bytes the message has."""
        return len(self.item.data)

    async def __call__(self) -> Position:
        """Wait until the message is stored.

        Raises:
            CometError: The message will not be stored.
        """
        if self.outcome is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        if isinstance(self.outcome, Position):
            return self.outcome
        assert self.outcome is not None  # noqa: S101 - the message is settled by now
        raise self.outcome

    def settle(self, outcome: Position | CometError) -> None:
        """Set the outcome, and wake the waiters. Idempotent; in the loop's thread."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
        if self.on_stored is not None and isinstance(outcome, Position):
            self.on_stored(outcome)


class Batch:
    """Messages that one call stores, with a number that is used once.

    Args:
        scripts: The scripts.
        worker: The name of the worker.
        number: A number above those of all earlier batches of the worker.
        appends: The messages, in the order of their calls.

    Attributes:
        call: The call. It never changes, so Redis recognises a call that is sent again.
        numbered: The worker and the number.
        groups: The messages of each group of the call.
        sent: When the call was first sent.
    """

    __slots__ = ("call", "groups", "numbered", "sent")

    def __init__(
        self, scripts: Scripts, worker: str, number: int, appends: Iterable[Append]
    ) -> None:
        self.groups: list[list[Append]] = _group(appends)
        self.call: Call[AppendReply] = scripts.append(
            worker,
            number,
            [Group(run[0].log, [one.item for one in run], run[0].fence) for run in self.groups],
        )
        self.numbered: tuple[str, int] = worker, number
        self.sent: float = math.inf

    @property
    def appends(self) -> list[Append]:
        """All messages of the batch."""
        return [append for run in self.groups for append in run]

    def settle(self, outcomes: Sequence[Outcome]) -> list[tuple[list[Append], Refused]]:
        """Settle the stored messages; return the groups that Redis has refused."""
        refused: list[tuple[list[Append], Refused]] = []
        for run, outcome in zip(self.groups, outcomes, strict=True):
            if isinstance(outcome, Refused):
                refused.append((run, outcome))
            else:
                _place(run, outcome)
        return refused


def _group(appends: Iterable[Append]) -> list[list[Append]]:
    """Group messages by channel and fence; the order within a channel stays."""
    groups: list[list[Append]] = []
    last: dict[str, list[Append]] = {}
    for append in appends:
        run = last.get(append.log.keys.meta)
        if run is None or run[0].log is not append.log or run[0].fence != append.fence:
            run = last[append.log.keys.meta] = []
            groups.append(run)
        run.append(append)
    return groups


def _place(run: Sequence[Append], stored: Stored) -> None:
    for append, position in zip(run, stored.positions, strict=True):
        if position is None:
            append.settle(error_of(append.log, Refused("keys")))
        else:
            append.settle(position)


def error_of(log: Log, refused: Refused) -> CometError:
    """Return the error that the publisher of a refused message gets."""
    name = log.keys.shown
    match refused.why:
        case "full":
            return ChannelFull(name)
        case "failed":
            return ChannelClosed(name, "failed")
        case "fenced":
            return Fenced(name)
        case "wrong":
            return BrokerUnavailable(f"a key of channel {name!r} is not ours: {refused.detail}")
        case "keys":
            return BrokerUnavailable(f"the state of channel {name!r} would be too large")
        case _:  # gone, unknown, ended, unused
            return ChannelClosed(name, "ended")
