"""The delivery of notifications to client processes of all workers.

The store has who listens. This worker asks the store for each notification, prepares the messages,
and hands them to the store. Owns that each client process gets a notification once, and that
notifications wait in line while the store is away. Must not know keys.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.audience import Audience, Listening
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, CometError
from asgi_comet.identity.announcing import Announcement
from asgi_comet.identity.process import Client, ClientProcess
from asgi_comet.log_events import event
from asgi_comet.notify.jobs import Job, Outbox
from asgi_comet.notify.queue import Queue
from asgi_comet.position import Position

__all__ = ["PAUSE", "Away", "Errand", "Sender", "SharedQueue", "Told"]

_logger = logging.getLogger(__name__)

PAUSE = 0.5  # seconds until a store that is away is asked again
ON_WAY = 10_000  # prepared messages that wait for the store, until no more are prepared
AT_ONCE = 1000  # of these in one call


def _ignore(error: CometError) -> None:
    """Do nothing: the error is in the log."""


@dataclass(slots=True, eq=False)
class Errand(Job):
    """A notification whose client processes only the store knows.

    Attributes:
        key: The key, as text.
        left_out: The spelling of the user to leave out.
        until: The time until which the notification waits for the store.
        after: The changes of this worker that come before: who listens.
        told: The client processes that it was handed out to.
        failed: Called with the reason if it cannot be handed out to all.
    """

    key: str = ""
    left_out: str | None = None
    until: float = 0.0
    after: Sequence[Announcement] = ()
    told: set[str] = field(default_factory=set)
    failed: Callable[[CometError], None] = field(default=_ignore)

    def skips_listening(self, one: Listening) -> bool:
        """Return whether a client process is left out, or has the notification already."""
        if one.process in self.told:
            return True
        if isinstance(self.not_for, ClientProcess):
            return one.process == self.not_for.id
        return self.left_out is not None and one.user == self.left_out


@dataclass(slots=True, eq=False)
class Away(Outbox):
    """The outbox of a client process that may be connected to any worker.

    Attributes:
        listening: The client process, as the store names it.
        idle: Called when nothing is left to prepare.
        handed: How many messages were prepared. Changed by the one that prepares.
        settled: How many of these the store has, or refused. Changed in the loop's thread.
    """

    listening: Listening
    idle: Callable[[Away], object]
    handed: int = 0
    settled: int = 0

    def advance(self) -> Job | None:
        """Finish the first job, and return the next one; `None` if nothing is pending."""
        after = Outbox.advance(self)
        if after is None:
            self.idle(self)
        return after


class Told:
    """A message that is being handed to the store. Calling it waits for the position."""

    __slots__ = ("_done", "_result")

    def __init__(self) -> None:
        self._done = anyio.Event()
        self._result: Position | CometError

    async def __call__(self) -> Position:
        """Return the position, once the store has the message.

        Raises:
            BrokerUnavailable: The store could not be reached.
            ChannelClosed: The client process has no such channel.
        """
        await self._done.wait()
        if isinstance(self._result, CometError):
            raise self._result
        return self._result

    def settle(self, result: Position | CometError) -> None:
        """Record the position, or why there is none. In the loop's thread."""
        self._result = result
        self._done.set()


@dataclass(frozen=True, slots=True)
class Sender:
    """The ways of a queue to the client processes.

    Attributes:
        name: The name of the notifier.
        audience: Returns the client processes by key.
        client: Returns the copy of a client process.
        patience: For how many seconds a notification waits for the store.
    """

    name: str
    audience: Callable[[], Audience]
    client: Callable[[Listening], Client]
    patience: float

    @property
    def channel(self) -> str:
        """The channels of the client processes, as clients write them."""
        return f"~{self.name}"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A message that waits for the store."""

    outbox: Away
    job: Job
    data: bytes
    told: Told


class SharedQueue(Queue[Away]):
    """Delivers notifications to client processes of all workers.

    Args:
        runtime: Runs the tasks.
        sender: The ways to the client processes.

    Attributes:
        outboxes: The outboxes of client processes for which messages are being prepared.
    """

    def __init__(self, runtime: Runtime, sender: Sender) -> None:
        super().__init__(runtime, sender.name)
        self.outboxes: dict[str, Away] = {}
        self._sender = sender
        self._clock = runtime.clock
        self._prepared: deque[_Prepared] = deque()
        self._sends = False  # whether a task hands them to the store
        self._sent = anyio.Event()

    async def _hand_out(self, job: Job) -> None:
        assert isinstance(job, Errand)  # noqa: S101 - for the type checker
        for change in job.after:
            await change.ended()
        while True:
            try:
                return await self._hand_out_all(job)
            except BrokerUnavailable as error:
                if self._clock.now() >= job.until:
                    self._give_up(job, error)
                    return None
            await self._pause()

    async def _pause(self) -> None:
        await self._clock.sleep_until(self._clock.now() + PAUSE)

    def _give_up(self, job: Job, error: CometError) -> None:
        _logger.error(
            "a notification of %r did not reach all: %s",
            self._name,
            error,
            extra=event("message.lost", notifier=self._name, reason=str(error)),
        )
        _fail(job, error)

    async def _hand_out_all(self, job: Errand) -> None:
        data = job.preparation.data
        async for part in self._sender.audience().listeners(self._name, job.key):
            chosen = [one for one in part if not job.skips_listening(one)]
            at_once = list[Listening]()
            for one in chosen:
                if data is None or one.process in self.outboxes:
                    job.told.add(one.process)
                    self._enqueue(self._outbox(one), job)
                else:
                    at_once.append(one)
            if at_once and data is not None:
                await self._tell_all(job, at_once, data)
            await self._room()

    async def _room(self) -> None:
        """Return when few prepared messages wait for the store."""
        while len(self._prepared) > ON_WAY:
            self._sent = anyio.Event()
            await self._sent.wait()

    async def _tell_all(self, job: Errand, processes: Sequence[Listening], data: bytes) -> None:
        results: Sequence[Position | CometError | None]
        try:
            ids = [one.process for one in processes]
            results = await self._sender.audience().tell(self._sender.channel, ids, data)
        except BrokerUnavailable as error:
            if not error.maybe_stored:
                raise
            self._give_up(job, error)  # for these, and go on with the others
            results = [error] * len(processes)
        job.told.update(one.process for one in processes)
        self._record(job, processes, results)

    def _record(
        self,
        job: Job,
        processes: Sequence[Listening],
        results: Sequence[Position | CometError | None],
    ) -> None:
        recorder = job.recorder()
        if recorder is None:
            return
        for one, result in zip(processes, results, strict=True):
            told = Told()
            told.settle(self._result(result))
            recorder._record(one, told)

    def _result(self, result: Position | CometError | None) -> Position | CometError:
        return ChannelClosed(self._sender.channel, "ended") if result is None else result

    # Outboxes

    def _outbox(self, one: Listening) -> Away:
        outbox = self.outboxes.get(one.process)
        if outbox is None:
            outbox = Away(self._sender.client(one), one, self._idle)
            self.outboxes[one.process] = outbox
        return outbox

    def _idle(self, outbox: Away) -> None:
        self._runtime.loop.run_soon(partial(self._forget, outbox))

    def _forget(self, outbox: Away) -> None:
        """Forget an outbox, once nothing may come behind it in another order. In the loop."""
        process = outbox.listening.process
        used = outbox.pending or outbox.handed != outbox.settled or outbox.gone
        if not used and self.outboxes.get(process) is outbox:
            del self.outboxes[process]

    def drop(self, process: str) -> None:
        """Prepare nothing more for a client process, which has closed. In the loop's thread."""
        outbox = self.outboxes.pop(process, None)
        if outbox is not None:
            self._drop(outbox)

    def _drop(self, outbox: Away) -> None:
        outbox.drop()
        if outbox.interrupt is not None:
            outbox.interrupt.fire()

    def _end(self, outbox: Away, why: str) -> None:
        _logger.info(
            "a channel of notifier %r %s: its keys are forgotten",
            self._name,
            why,
            extra=event("subscription.ended", notifier=self._name, reason=why),
        )
        self._drop(outbox)  # stays in the table, so nothing comes behind it before the end
        self._runtime.background.start(partial(self._overflow, outbox))

    async def _overflow(self, outbox: Away) -> None:
        process, audience = outbox.listening.process, self._sender.audience
        until = self._clock.now() + self._sender.patience
        try:
            while True:
                try:
                    return await audience().overflow(self._sender.channel, process)
                except BrokerUnavailable as error:
                    if self._clock.now() >= until:
                        return self._report_gap(error)
                await self._pause()
        finally:
            if self.outboxes.get(process) is outbox:
                del self.outboxes[process]

    def _report_gap(self, error: BrokerUnavailable) -> None:
        _logger.error(
            "a channel of notifier %r misses messages: %s",
            self._name,
            error,
            extra=event("message.lost", notifier=self._name, reason=str(error)),
        )

    # Prepared messages

    def _publish(self, outbox: Away, job: Job, data: bytes | None) -> None:
        if data is None or outbox.gone:
            return
        told = Told()
        recorder = job.recorder()
        if recorder is not None:
            recorder._record(outbox.listening, told)
        outbox.handed += 1
        self._prepared.append(_Prepared(outbox, job, data, told))
        self._runtime.loop.run(self._begin_sending)

    def _begin_sending(self) -> None:
        if not self._sends:
            self._sends = True
            self._runtime.background.start(self._send_all)

    async def _send_all(self) -> None:
        """Hand the prepared messages to the store, in order, until there are none."""
        try:
            while self._prepared:
                count = min(len(self._prepared), AT_ONCE)
                await self._send([self._prepared.popleft() for _ in range(count)])
                self._sent.set()
        finally:
            self._sends = False

    async def _send(self, some: Sequence[_Prepared]) -> None:
        errors = list[BrokerUnavailable]()
        for one, result in zip(some, await self._tell_each(some), strict=True):
            if isinstance(result, BrokerUnavailable):
                errors.append(result)
                _fail(one.job, result)
            one.told.settle(self._result(result))
            one.outbox.settled += 1
            self._forget(one.outbox)
        if errors:
            count, name = len(errors), self._name
            _logger.error(
                "%d messages of notifier %r were not stored: %s",
                count,
                name,
                errors[0],
                extra=event("message.lost", notifier=name, count=count, reason=str(errors[0])),
            )

    async def _tell_each(
        self, some: Sequence[_Prepared]
    ) -> Sequence[Position | BrokerUnavailable | None]:
        messages = [(one.outbox.listening.process, one.data) for one in some]
        until = self._clock.now() + self._sender.patience
        while True:
            try:
                return await self._sender.audience().tell_each(self._sender.channel, messages)
            except BrokerUnavailable as error:
                if self._clock.now() >= until:
                    return [error] * len(some)
            await self._pause()


def _fail(job: Job, error: CometError) -> None:
    """Tell the application that a notification did not reach all."""
    assert isinstance(job, Errand)  # noqa: S101 - for the type checker
    job.failed(error)
