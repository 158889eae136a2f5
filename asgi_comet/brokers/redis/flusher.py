"""The writes of a worker to one primary: one ordered queue, with one entry under way.

Owns the order, the bounds of the queue, and that no message is stored twice: an entry leaves the
queue with the reply, and is sent again unchanged on the next connection. While a batch is under
way, messages gather for the next batch, so there is no timer.
Must not know how connections are made, nor what channels are.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.appends import Append, Batch, error_of
from asgi_comet.brokers.redis.audience_scripts import AudienceScripts, Message, Told
from asgi_comet.brokers.redis.calls import Call, Item, Log
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.patience import Patience
from asgi_comet.brokers.redis.queueing import REMEMBERED, Entry, Limits, Queue, Single
from asgi_comet.brokers.redis.replies import AppendReply, Refused, Stale
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.tellings import Telling
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.log_events import event

__all__ = ["Flusher", "Limits"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")
OnRefused = Callable[[Sequence[Append], Refused], None]
"""Settles the messages of a refused group, or puts the messages back by `Flusher.put_back`.

Called before the next entry is sent."""

FORGOTTEN = 0.9 * REMEMBERED  # seconds after which a batch is not sent again
PAUSE = 0.5  # seconds until a refused message of a source is sent again


class Flusher:
    """The queue of one worker and one primary.

    Args:
        scripts: The scripts.
        worker: The name under which batches are numbered: never used before.
        clock: The clock.
        run_soon: Runs a function in the loop's next turn; thread-safe.
        on_refused: Takes the messages that Redis refused; by default the messages fail.
        limits: The bounds of the queue.

    Attributes:
        worker: The name under which batches are numbered, from the next batch on.
        patience: For how long messages and scripts wait for Redis.
    """

    def __init__(
        self,
        scripts: Scripts,
        worker: str,
        clock: Clock,
        run_soon: Callable[[Callable[[], None]], object],
        on_refused: OnRefused | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._scripts = scripts
        self.worker: str = worker
        self._clock = clock
        self._on_refused = on_refused or fail_all
        limits = limits or Limits()
        self._queue = Queue(limits, lambda: run_soon(self._work.set), self._find_trouble)
        self.patience: Patience = Patience(self._queue, limits.patience, clock)
        self._numbers = itertools.count(1)
        self._head: Batch | Single[Any] | None = None
        self._work = asyncio.Event()
        self._less = asyncio.Event()

    def prepare(self) -> None:
        """Prepare for this loop, which may differ from the loop before."""
        self._queue.closed = False
        self._work = asyncio.Event()
        self._less = asyncio.Event()

    def begin(self, worker: str) -> None:
        """Start the time limits of waiting messages.

        Args:
            worker: A name that was never used before.
        """
        self.worker = worker
        self.patience.begin()

    def _find_trouble(self) -> str:
        return self.patience.trouble()

    # In any thread

    def append(self, log: Log, item: Item, fence: str = "", *, patient: bool = False) -> Append:
        """Queue a message.

        Args:
            log: The channel.
            item: The message.
            fence: The fence of the worker that reads the channel's source, of source values.
            patient: Whether the message is never given up; the caller waits for `room` before.

        Raises:
            BrokerUnavailable: The queue is full.
        """
        append = Append(log, item, fence, self._clock.now(), patient=patient)
        self._queue.append(append)
        return append

    def make(self, log: Log, item: Item, fence: str = "", *, patient: bool = False) -> Append:
        """Make a message that is stored once `add` is called; see `append`."""
        append = Append(log, item, fence, self._clock.now(), patient=patient)
        self._queue.admit(append)
        return append

    def add(self, appends: Sequence[Append], log: Log) -> None:
        """Queue messages that were made before their channel was known."""
        for append in appends:
            append.log = log
        if appends:
            self._queue.add(appends)

    @property
    def waiting(self) -> int:
        """How many messages wait, including those under way."""
        return self._queue.messages

    @property
    def queued(self) -> int:
        """How many messages and scripts wait, excluding those under way."""
        return len(self._queue)

    # In the loop's thread

    def call(
        self, call: Call[T], *, patient: bool = True, again: bool = False
    ) -> asyncio.Future[T]:
        """Queue a script; it runs after all earlier entries and before all later ones.

        Args:
            call: The script, which recognises a repeated call.
            patient: Whether the script is never given up.
            again: Whether the script is tried again if Redis refuses it, because Redis is full.
                Values of the channel's source then wait, too.
        """
        single = Single(call, self._clock.now(), patient=patient, again=again)
        self._queue.add([single])
        self._work.set()
        return single.future

    def tell(self, scripts: AudienceScripts, message: Message) -> asyncio.Future[tuple[Told, ...]]:
        """Queue a message to many channels; it is stored after all earlier entries."""
        telling = Telling(scripts, message, self._clock.now())
        told = telling.first
        self._queue.add_or_join(telling, telling.joins)
        self._work.set()
        return told

    def take_back(self, appends: Sequence[Append]) -> list[Append]:
        """Keep refused messages until `add`; from `on_refused`. Return those not given up."""
        left = [append for append in appends if append.outcome is None]
        self._queue.take_back(left)
        return left

    def put_back(self, appends: Sequence[Append], before: Call[T]) -> asyncio.Future[T]:
        """Send a script and then refused messages, before all other entries; from `on_refused`."""
        single = Single(before, self._clock.now(), patient=True, again=False)
        self._queue.put_first(single, appends)
        return single.future

    async def room(self, size: int) -> None:
        """Return when there is room for a message of `size` bytes."""
        while not self._queue.fits(size):
            self._less.clear()
            await self._less.wait()

    async def drained(self) -> None:
        """Return when no entry waits or is under way."""
        while self._queue or self._head is not None:
            self._less.clear()
            await self._less.wait()

    async def run(self, connection: Connection) -> NoReturn:
        """Send the waiting entries, as long as the connection lasts.

        Raises:
            BrokerUnavailable: The connection has ended.
        """
        connection.tell_end(self._work.set)
        while True:
            if connection.closed is not None:
                raise BrokerUnavailable(connection.closed)
            head = self._head = self._head or self._take()
            if head is None:
                await self._wait()
                continue
            again = head.sent < math.inf
            try:
                await self._send(connection, head)
            except ReplyError as error:
                if connection.closed is not None:
                    raise
                await self._look_again(connection, head, error, again=again)
            self._less.set()

    def give_up(self, early: Sequence[Append] = ()) -> None:
        """Give up entries that have waited too long; called about every second.

        Args:
            early: Messages that were never added, and have waited too long.
        """
        over = self.patience.ended
        if self._head is not None:
            self._give_up_head(self._head, over)
        late = self._queue.remove(lambda one: one.since < over and not one.patient)
        self.patience.fail([*early, *late], maybe_stored=False)
        self._less.set()

    def give_up_calls(self) -> None:
        """Give up the waiting scripts, and go on with the messages."""
        singles = self._queue.remove(lambda one: isinstance(one, Single))
        if isinstance(self._head, Single):
            singles.append(self._head)
            self._head = None
        self.patience.fail(singles, maybe_stored=False, why="the server stops")

    def abandon(self, early: Sequence[Append] = (), *, close: bool = False) -> None:
        """Give up all entries: the server stops.

        Args:
            early: Messages that were never added.
            close: Whether to refuse messages until the next `prepare`.
        """
        every = self._queue.clear(close=close)
        head, self._head = self._head, None
        if head is not None:
            parts, sent = _parts_of(head), head.sent < math.inf
            self.patience.fail(parts, maybe_stored=sent, why="the server stops")
        self.patience.fail([*early, *every], maybe_stored=False, why="the server stops")

    def _give_up_head(self, head: Batch | Single[Any], over: float) -> None:
        """Give up an entry under way; a batch with values of a source is still sent."""
        parts = _parts_of(head)
        if isinstance(head, Batch) and head.sent < self._clock.now() - FORGOTTEN:
            self._head = None  # Redis may store the batch a second time
            self.patience.fail(parts, maybe_stored=True)
        if min(one.since for one in parts) >= over:
            return
        impatient = [one for one in parts if not one.patient]
        if len(impatient) == len(parts):
            self._head = None
        self.patience.fail(impatient, maybe_stored=head.sent < math.inf)

    def _take(self) -> Batch | Single[Any] | None:
        self._work.clear()
        taken = self._queue.take(self._clock.now())
        if isinstance(taken, Telling):
            taken.number(self.worker, next(self._numbers))
        if isinstance(taken, Single):
            return taken
        if not taken:
            return None
        return Batch(self._scripts, self.worker, next(self._numbers), taken)

    async def _send(self, connection: Connection, head: Batch | Single[Any]) -> None:
        reply = connection.send(head.call)
        head.sent = min(head.sent, self._clock.now())
        if isinstance(head, Single):
            await self._send_single(connection, reply, head)
        else:
            self._settle(connection, head, await reply)

    def _settle(self, connection: Connection, head: Batch, outcomes: AppendReply) -> None:
        if isinstance(outcomes, Stale):
            self._stale(connection, head, outcomes)
            return
        self._head = None
        self._queue.settled(head.appends)
        for run, refused in head.settle(outcomes):
            self._on_refused(run, refused)

    async def _send_single(
        self, connection: Connection, reply: asyncio.Future[T], head: Single[T]
    ) -> None:
        try:
            value = await reply
        except BrokerUnavailable:
            raise
        except Exception as error:  # the reply cannot be read
            self._head = None
            head.fail(error)
        else:
            self._settle_single(connection, head, value)

    def _settle_single(self, connection: Connection, head: Single[T], value: T) -> None:
        if isinstance(value, Stale):
            self._stale(connection, head, value)
        else:
            self._head = None
            head.succeed(value)

    async def _look_again(
        self, connection: Connection, head: Batch | Single[Any], error: ReplyError, *, again: bool
    ) -> None:
        """Take a refusal; first find out whether Redis has stored what was sent before."""
        if not again or error.maybe_stored or not isinstance(head, Batch | Telling):
            self._refused(head, error)
            return
        try:
            reply = await connection.send(self._scripts.void(*head.numbered, head.call.read))
        except ReplyError:
            await self._clock.sleep_until(self._clock.now() + PAUSE)  # then it is sent again
            return
        if self._head is not head:  # given up meanwhile
            return
        if isinstance(reply, Stale) and reply.void:
            self._refused(head, error)
        elif isinstance(head, Single):
            self._settle_single(connection, head, reply)
        else:
            self._settle(connection, head, reply)

    def _renumber(self, head: Batch | Single[Any]) -> None:
        """Have an entry sent under another number."""
        if isinstance(head, Telling):
            head.number(self.worker, next(self._numbers))
            head.sent = math.inf
        else:
            assert isinstance(head, Batch)  # noqa: S101 - for the type checker: it has a number
            left = [append for append in head.appends if append.outcome is None]
            number = next(self._numbers)
            self._head = Batch(self._scripts, self.worker, number, left) if left else None

    def _refused(self, head: Batch | Single[Any], error: ReplyError) -> None:
        """Redis has answered with an error."""
        self._head = None
        if isinstance(head, Single):
            if head.again and not error.maybe_stored:
                self._queue.park([head], self._clock.now() + PAUSE)
            else:
                head.fail(error)
            return
        left = [append for append in head.appends if append.outcome is None]
        again = [append for append in left if append.patient and not error.maybe_stored]
        lost = [append for append in left if not append.patient or error.maybe_stored]
        self.patience.lose(lost, error)
        if again:
            self._queue.settled(again)
            self._queue.park(again, self._clock.now() + PAUSE)

    async def _wait(self) -> None:
        """Return when there may be an entry to send."""
        if not self._queue.parked:
            await self._work.wait()
            return
        waits = [self._clock.sleep_until(self._queue.parked_until), self._work.wait()]
        tasks = [asyncio.ensure_future(one) for one in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _stale(self, connection: Connection, head: Batch | Single[Any], why: Stale) -> None:
        """Redis never stores a batch under its number."""
        if why.void:  # and the worker has not heard of that
            self._renumber(head)
            return
        # A later batch of this worker was stored before: a fault of this code.
        _logger.error(
            "a batch of worker %s came after a later one",
            self.worker,
            extra=event("internal.failed", worker=self.worker),
        )
        self._head = None
        self.patience.fail(_parts_of(head), maybe_stored=True, why="batches were mixed up")
        connection.close("batches were mixed up")


def _parts_of(head: Batch | Single[Any]) -> Sequence[Entry]:
    return head.appends if isinstance(head, Batch) else [head]


def fail_all(appends: Sequence[Append], refused: Refused) -> None:
    """Tell the publishers of messages that Redis refused."""
    for append in appends:
        append.settle(error_of(append.log, refused))
