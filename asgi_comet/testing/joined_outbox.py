"""The messages on their way from one of the workers that a `JoinedBroker` joins to the store.

Owns the order of these messages, and which logs take no more. Must not know windows or frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

import anyio

from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Log
from asgi_comet.core.messages import Message
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, ChannelFull, CometError
from asgi_comet.position import Position
from asgi_comet.testing.store import Record, Store

__all__ = ["Outbox"]

WAITING = 100_000  # messages of one worker that wait to be stored


class Waiting:
    """A message on its way to the store. Calling it waits until the message is stored."""

    __slots__ = ("_done", "_outcome", "data", "id", "log")

    def __init__(self, log: Log, data: bytes, id_: str | None) -> None:
        self.log: Log = log
        self.data: bytes = data
        self.id: str | None = id_
        self._done = anyio.Event()
        self._outcome: Position | CometError

    async def __call__(self) -> Position:
        await self._done.wait()
        if isinstance(self._outcome, CometError):
            raise self._outcome
        return self._outcome

    def settle(self, outcome: Position | CometError) -> None:
        self._outcome = outcome
        self._done.set()


class Outbox:
    """The messages of one worker that wait to be stored.

    Args:
        store: The store.
        host: Returns the worker.

    Attributes:
        records: The log in the store that each window is of; a namesake may live by now.
    """

    def __init__(self, store: Store, host: Callable[[], Host]) -> None:
        self._store = store
        self._host = host
        self._waiting: deque[Waiting] = deque()
        self.records: WeakKeyDictionary[Log, Record] = WeakKeyDictionary()
        self._refused: WeakKeyDictionary[Log, CometError] = WeakKeyDictionary()

    def append(self, log: Log, data: bytes, id_: str | None) -> Waiting:
        """Take a message; it is stored once the store has the log.

        Raises:
            BrokerUnavailable: Too many messages wait.
            ChannelFull: The channel is full.
        """
        if len(self._waiting) >= WAITING:
            raise BrokerUnavailable(f"{WAITING} messages wait to be stored")
        waiting = Waiting(log, data, id_)
        refusal = self._refused.get(log)
        if isinstance(refusal, ChannelFull):
            raise refusal
        if refusal is not None:
            waiting.settle(refusal)
        else:
            self._waiting.append(waiting)
        return waiting

    def accept(self, log: Log, record: Record) -> None:
        """Take messages of a log again, which the store has."""
        self.records[log] = record
        self._refused.pop(log, None)

    def refuse(self, log: Log, error: CometError) -> None:
        """Take no messages of a log any more, and store none of those that wait."""
        self._refused[log] = error
        for waiting in [one for one in self._waiting if one.log is log]:
            self._waiting.remove(waiting)
            waiting.settle(error)

    def flush(self) -> None:
        """Store the messages that wait, unless the store does not have their logs yet."""
        now = self._host().now()
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            record = self.records.get(waiting.log)
            if record is None:
                self._waiting.append(waiting)
            else:
                self._append(waiting, record, now)

    def give_up(self) -> None:
        """Drop the messages that wait."""
        while self._waiting:
            self._waiting.popleft().settle(BrokerUnavailable("the process ends"))

    def _append(self, waiting: Waiting, record: Record, now: float) -> None:
        log = waiting.log
        try:
            stored = self._store.append(record, waiting.data, waiting.id, now)
        except ChannelFull as error:
            self._refused[log] = error
            waiting.settle(error)
            self._host().ended(log, "full")
        except ChannelClosed as error:
            waiting.settle(error)
            self._host().ended(log, error.reason)
        else:
            waiting.settle(stored)
            if log.spec.owner is not None and log.spec.sourced:
                # an on-demand source goes by what its own window holds
                message = Message(stored.offset, waiting.data)
                self._host().received(log, stored.epoch, stored.offset, [message])
