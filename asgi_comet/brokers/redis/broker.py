"""The broker on Redis: channels of the site and of client processes, from any worker.

Owns the life of a broker: bound to a worker, running in a loop, stopped, forked. Must not know how
its parts are joined.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import NoReturn

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.base import Broker, Host
from asgi_comet.brokers.condition import Condition
from asgi_comet.brokers.logs import (
    ChannelSpec,
    Closed,
    Full,
    Opened,
    Placed,
    State,
    Stored,
    Unknown,
    Unsuitable,
)
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.address import Address, parse_address
from asgi_comet.brokers.redis.arguments import check_bytes, check_seconds, check_truth
from asgi_comet.brokers.redis.assembly import Assembly, Given
from asgi_comet.brokers.redis.calls import Call, Item, fresh
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.notices import Notices
from asgi_comet.brokers.redis.people import RedisPeople
from asgi_comet.brokers.redis.people_replies import PROGRESS, read_progress
from asgi_comet.brokers.redis.probing import Inbox, Probe
from asgi_comet.brokers.redis.queueing import Limits
from asgi_comet.brokers.redis.records import check_kind, keys_of
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Primary, Serving
from asgi_comet.core.messages import Message, Start
from asgi_comet.errors import (
    BrokerUnavailable,
)
from asgi_comet.log_events import event

__all__ = ["RedisBroker"]

_logger = logging.getLogger(__name__)

PATIENCE_AT_STOP = 5.0  # seconds
TICK = 1.0  # seconds between two looks for messages that have waited too long
HEALTHY = 10.0  # seconds since the last probe came back
MIB = 2**20


class RedisBroker(Broker):
    """Carries channels between workers through Redis or Valkey.

    Does no input or output before the lifespan. Belongs to one `Comet`.

    Args:
        url: The address of Redis: `redis://`, `rediss://`, `unix://`, `redis+unix://`, or
            `redis+sentinel://a,b,c/name/0`.
        prefix: The beginning of all keys: the same for all workers of one application.
        partitions: Into how many parts the keys are divided. Another number is another database.
        patience: How many seconds a message waits to be stored, at most; below 300.
        timeout: How many seconds Redis may take to answer.
        buffer_bytes: How many bytes of messages may wait to be stored; `publish` then raises
            `BrokerUnavailable`.
        history_ttl: How many seconds the messages of a channel stay after the newest one; `None` is
            as long as the channel.
        durable: Whether the operator vouches that Redis never loses an acknowledged write: readers
            are then not told `full` after a restart of Redis. Not with replicas.
        window_bytes: How many bytes of messages a worker keeps of all followed channels together.
        clock: The clock; for tests.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of bounds, or the URL cannot be read; the text does not show
            the password.
    """

    shares_people = True

    def __init__(  # noqa: PLR0913 - operators choose each of these figures
        self,
        url: str,
        *,
        prefix: str = "comet",
        partitions: int = 64,
        patience: float = 60.0,
        timeout: float = 2.0,
        buffer_bytes: int = 16 * MIB,
        history_ttl: float | None = None,
        durable: bool = False,
        window_bytes: int = 256 * MIB,
        clock: Clock | None = None,
    ) -> None:
        self.address: Address = parse_address(url)
        check_seconds(patience=patience, timeout=timeout)
        check_bytes(buffer_bytes=buffer_bytes, window_bytes=window_bytes)
        check_truth(durable=durable)
        if history_ttl is not None:
            check_seconds(history_ttl=history_ttl)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock = clock or MonotonicClock()
        self._scripts = Scripts(Keys(prefix, partitions), durable)
        self._notices = notices = Notices(_logger, self._clock.now)
        self._given = Given(
            address=self.address,
            scripts=self._scripts,
            limits=Limits(bytes=buffer_bytes, patience=patience),
            history_lives=None if history_ttl is None else int(history_ttl * 1000),
            window_bytes=window_bytes,
            notices=notices,
            clock=self._clock,
        )
        self._primary = Primary(
            self.address, self._scripts, timeout, warn=notices.warning, advise=notices.advise
        )
        self.patience = patience
        self.serving: Serving
        self.inbox: Inbox
        self._make_serving()

    def __repr__(self) -> str:
        return f"RedisBroker({str(self.address)!r})"

    def bind(self, host: Host) -> None:
        """Bind the broker to a worker."""
        super().bind(host)
        self._assemble(host)

    def forked(self) -> None:
        """Forget the connection and the waiting messages: both belong to the parent process."""
        self._before_fork = self.serving  # not closed: the parent process uses the socket
        self._make_serving()
        self._assemble(self.host)

    def _make_serving(self) -> None:
        clock, scripts = self._clock, self._scripts
        self.serving = Serving(self._primary, clock)
        self.inbox = Inbox()
        self._probe = Probe(scripts, clock, self.inbox, lambda: self.serving.generation)

    def _assemble(self, host: Host) -> None:
        self._parts = Assembly(self, host, self._given, self.serving, self.inbox)

    # The connection

    @property
    def healthy(self) -> bool:
        """Whether a published probe reached this worker within the last seconds."""
        return self.serving.connection is not None and self.last_probe < HEALTHY

    @property
    def trouble(self) -> str:
        """Why there is no connection; `""` if there is one, or none was tried."""
        return self.serving.trouble

    @property
    def last_probe(self) -> float:
        """How many seconds ago a probe last came back from Redis; infinite if no probe did."""
        return self._probe.age

    def prepare(self) -> None:
        """Prepare for the current event loop, which may differ from the loop before.

        Raises:
            Unsuitable: The loop is trio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise Unsuitable("expected asyncio or uvloop for a broker on Redis, got trio") from None
        if self._loop is not loop:
            self._loop = loop
            self.serving.prepare()
            self._parts.flusher.prepare()

    async def ready(self) -> None:
        """Return once the first connection serves.

        Raises:
            Unsuitable: Redis cannot serve until an operator changes something.
        """
        await self.serving.ready()

    async def run(self) -> NoReturn:
        """Stay connected until cancelled.

        Raises:
            Unsuitable: The server runs on trio.
        """
        self.prepare()
        self._parts.heartbeat.departed = False
        self._parts.flusher.begin(fresh() + fresh())
        self._parts.plan(self._probe)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lose_patience())
            await self.serving.run()

    async def _lose_patience(self) -> NoReturn:
        while True:
            await self._clock.sleep_until(self._clock.now() + TICK)
            self._parts.flusher.give_up(
                self._parts.holding.give_up(self._parts.flusher.patience.ended)
            )
            self._notices.tell()

    def leave(self) -> None:
        """Fail the scripts that wait for Redis if Redis is away: the server stops."""
        if self.serving.connection is None:
            self._parts.flusher.give_up_calls()

    async def hand_over(self) -> None:
        """Store the waiting messages within a time limit, and leave the other workers."""
        self._loop = None  # the next start prepares again, even in this loop
        patience = PATIENCE_AT_STOP if self.serving.generation else 0
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._parts.own.end_sources()
                    await self._parts.flusher.drained()
                    await self._depart()
        finally:  # also if the server has no time left
            waiting = self._parts.flusher.waiting
            if waiting:
                _logger.error(
                    "%d messages were not stored at the stop",
                    waiting,
                    extra=event("message.lost", count=waiting),
                )
            self._parts.flusher.abandon(self._parts.holding.give_up(math.inf), close=True)

    def give_up(self) -> None:
        """Drop the messages that wait to be stored."""
        self._parts.flusher.abandon(self._parts.holding.give_up(math.inf))

    async def _depart(self) -> None:
        if self.serving.connection is not None:
            self._parts.people.depart(self.serving.connection)
        worker, owning = self._parts.heartbeat.depart(), self._parts.ownership.owning
        if worker:
            with suppress(BrokerUnavailable):
                await self.serving.ask(self._scripts.depart(worker, owning=owning))

    # Publishing

    def append(
        self,
        log: Window,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
        state: State | None = None,
        sourced: bool = False,
    ) -> Stored:
        """Queue a message."""
        del state  # there are no keyed channels yet
        if not sourced:
            return self._parts.holding.append(log, Item(data, id or ""))
        bid = self._parts.ownership.owned(log)
        append = self._parts.holding.append(log, Item(data, id or ""), bid.fence, patient=True)
        self._parts.own.watch(append, log, bid)
        return append

    # Names

    async def open(self, log: Window, *, make: bool = True) -> Opened:
        """Make the channel, or adopt a channel that every worker makes."""
        spec = log.spec
        reclaims = spec.reclaim and spec.owner is None  # else it lives as long as its process
        owns = not spec.adopt and (spec.sourced or reclaims) and not self.only_publishes
        return await self._parts.naming.open(log, make=make, owns=owns)

    async def find(self, name: str) -> ChannelSpec | None:
        """Return the properties of a channel, if there is one, or was a moment ago."""
        return await self._parts.naming.find(name)

    async def end(self, log: Window, reason: str) -> None:
        """End the channel, after all that was published."""
        await self._parts.holding.end(log, reason)
        self._parts.ownership.ended(log)
        await self._parts.following.finish(log)

    # Reading

    async def follow(self, log: Window) -> None:
        """Fill the window of a site channel, and receive all frames from now on."""
        check_kind(log.spec)
        self._parts.naming.adopt(log, await self._parts.following.follow(log))

    def unfollow(self, log: Window) -> None:
        """Stop receiving the frames of a log."""
        self._parts.following.unfollow(log)
        held = self._parts.holding.find(log)
        self._parts.ownership.leave(log, closed=held is not None and held.closed is not None)

    async def place(self, log: Window, start: Start) -> Placed | Full | Closed | Unknown:
        """Find where a reader begins; the window then has all messages that Redis has."""
        return await self._parts.reading.place(log, start)

    async def recover(self, log: Window, after: int, max_bytes: int) -> list[Message] | None:
        """Read messages that the window does not hold."""
        return await self._parts.reading.recover(log, after, max_bytes)

    def acknowledge(self, log: Window, offset: int) -> None:
        """Report what the reader of an own channel has."""
        self._parts.own.marks.acknowledge(log, offset)

    def skip(self, log: Window, after: int, upto: int) -> None:
        """Report what the reader of an own channel lacks."""
        self._parts.own.marks.skip(log, after, upto)

    async def acknowledged(self, log: Window) -> Progress | None:
        """Ask for what is acknowledged."""
        meta = keys_of(self._scripts.keys, log).meta
        return await self.serving.ask(Call(("HMGET", meta, *PROGRESS), read_progress))

    def mark_sent(self, log: Window, offset: int) -> None:
        """Report what the reader of an own channel was sent."""
        self._parts.own.marks.mark_sent(log, offset)

    def want(self, log: Window, offset: int) -> None:
        """Ask the owner, which may be this worker."""
        self._parts.own.want(log, offset)

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        """Ask all workers."""
        return await self._parts.questions.ask(question, seconds)

    # Ownership

    def bid(self, log: Window, *, continues: bool = False) -> None:
        """Offer to own a channel."""
        held = self._parts.holding.find(log)
        if held is not None:
            keeps = continues or not log.spec.sourced  # without a source nothing is lost
            self._parts.ownership.bid(held.log, log, continues=keeps)

    def release(self, log: Window, *, clean: bool) -> None:
        """Withdraw a bid."""
        self._parts.ownership.release(log, clean=clean)

    def renew(self, log: Window) -> None:
        """Give an owned channel another epoch."""
        self._parts.ownership.renew(log)

    @property
    def connected(self) -> bool:
        """Whether there is a connection to Redis."""
        return self.serving.connection is not None

    @property
    def condition(self) -> Condition:
        """The number of this worker, and what the connection has been through."""
        serving, heartbeat = self.serving, self._parts.heartbeat
        return Condition(
            number=heartbeat.number if heartbeat.worker else None,
            reconnects=max(serving.served - 1, 0),
            errors=serving.failures,
            lag=self._probe.lag,
        )

    @property
    def away(self) -> float | None:
        """For how many seconds there has been no connection to Redis."""
        return self.serving.away

    @property
    def mixed(self) -> bool:
        """Whether workers declare different names."""
        return self._parts.heartbeat.mixed

    @property
    def elsewhere(self) -> int:
        """How many members of families other workers own, and this worker does not follow."""
        return self._parts.ownership.elsewhere

    @property
    def workers(self) -> int:
        """How many workers were alive at the last heartbeat."""
        return len(self._parts.heartbeat.living)

    def retire(self, log: Window, linger: float) -> bool:
        """End an owned channel once no worker uses it."""
        return self._parts.caretaker.retire(log, linger)

    @property
    def people(self) -> RedisPeople:
        """The sharing of sessions and client processes."""
        return self._parts.people
