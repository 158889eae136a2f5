"""The broker on Redis: channels of the site and of client processes, from any worker.

Owns the parts of a broker, and the order in which the parts start on a new connection. Must not
know the form of commands and replies.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.base import Broker, Host
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
from asgi_comet.brokers.redis.appends import Append
from asgi_comet.brokers.redis.arguments import check_bytes, check_seconds, check_truth
from asgi_comet.brokers.redis.calls import Call, Item, fresh
from asgi_comet.brokers.redis.caretaker import Caretaker
from asgi_comet.brokers.redis.claims import Claims
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.holding import Holding
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.mixture import Mixture
from asgi_comet.brokers.redis.naming import Naming
from asgi_comet.brokers.redis.notices import Notices
from asgi_comet.brokers.redis.own import OwnChannels
from asgi_comet.brokers.redis.ownership import Ownership
from asgi_comet.brokers.redis.people import Parts, RedisPeople
from asgi_comet.brokers.redis.people_replies import PROGRESS, read_progress
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.probing import Inbox, Probe
from asgi_comet.brokers.redis.questions import Questions
from asgi_comet.brokers.redis.queueing import Limits
from asgi_comet.brokers.redis.reading import Reading
from asgi_comet.brokers.redis.records import check_kind, keys_of
from asgi_comet.brokers.redis.replies import Refused
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Primary, Serving
from asgi_comet.core.messages import Message, Start
from asgi_comet.errors import (
    BrokerUnavailable,
)

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
        self._limits = Limits(bytes=buffer_bytes, patience=patience)
        self._history_lives = None if history_ttl is None else int(history_ttl * 1000)
        self._window_bytes = window_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock = clock or MonotonicClock()
        self._scripts = Scripts(Keys(prefix, partitions), durable)
        self._notices = notices = Notices(_logger, self._clock.now)
        self._primary = Primary(
            self.address, self._scripts, timeout, warn=notices.warning, advise=notices.advise
        )
        self.patience = patience
        self.serving: Serving
        self.inbox: Inbox
        self.claims: Claims
        self._make_serving()

    def __repr__(self) -> str:
        return f"RedisBroker({str(self.address)!r})"

    def bind(self, host: Host) -> None:
        """Bind the broker to a worker."""
        super().bind(host)
        self._make_parts(host)

    def forked(self) -> None:
        """Forget the connection and the waiting messages: both belong to the parent process."""
        self._before_fork = self.serving  # not closed: the parent process uses the socket
        self._make_serving()
        self._make_parts(self.host)

    def _make_serving(self) -> None:
        self.serving = Serving(self._primary, self._clock, self._take_frame)
        self.inbox = Inbox()
        self._probe = Probe(self._scripts, self._clock, self.inbox, lambda: self.serving.generation)

    def _make_parts(self, host: Host) -> None:
        scripts, serving = self._scripts, self.serving
        flusher = Flusher(
            scripts,
            fresh() + fresh(),
            self._clock,
            host.run_soon,
            self._refuse,
            self._limits,
        )
        flusher.on_lost = self._report_lost
        flusher.trouble = lambda: serving.trouble
        self._flusher = flusher
        self._holding = Holding(host, scripts, serving, flusher, self._clock)
        self._following = Following(
            host, scripts, serving, self._holding, self._clock, self._window_bytes
        )
        self._reading = Reading(scripts, serving, self._holding, self._following)
        mixture = Mixture(self.address, scripts.keys.prefix, self._clock.now)
        heartbeat = Heartbeat(scripts, self.inbox, host, mixture, self._clock)
        send = partial(flusher.call, again=True)
        ownership = Ownership(self, heartbeat, send, scripts, self._clock)
        heartbeat.members = ownership.members
        self._following.on_moved = ownership.confirm
        self._naming = Naming(
            scripts, serving, flusher, self._holding, ownership, self._history_lives
        )
        self._heartbeat, self._ownership = heartbeat, ownership
        limits = host.limits
        people = PeopleScripts(
            scripts.keys, scripts.durable, int(limits.timeout * 1000), limits.of_session
        )
        self._own = OwnChannels(host, scripts, people, serving, self._clock)
        self._own.join(self._following, self._holding, self._naming, ownership, heartbeat)
        self._own.take_from(self.inbox)
        self._caretaker = Caretaker(
            host, scripts, self._clock, heartbeat, ownership, self._following
        )
        self._questions = Questions(scripts.keys.questions, serving, self.inbox, host)
        self._people = self._make_people(host, people)

    def _make_people(self, host: Host, people: PeopleScripts) -> RedisPeople:
        parts = Parts(
            host=host,
            scripts=self._scripts,
            people=people,
            serving=self.serving,
            flusher=self._flusher,
            heartbeat=self._heartbeat,
            inbox=self.inbox,
            clock=self._clock,
        )
        return RedisPeople(parts, self._own.claims)

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
            self._flusher.prepare()

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
        self._heartbeat.departed = False
        self._flusher.begin(fresh() + fresh())
        self._plan()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lose_patience())
            await self.serving.run()

    def _plan(self) -> None:
        """List the steps and tasks of each connection."""
        serving, queue = self.serving, self._flusher.run
        if self.only_publishes:
            serving.before, serving.tasks, serving.after = [self._holding.announce], [queue], []
            return
        people = self._people
        serving.before = [*people.first, self._heartbeat.begin, *people.before]
        serving.before.append(self._holding.announce)
        serving.tasks = [queue, self._holding.orphans.run, self._probe.run, self._following.watch]
        serving.tasks += [self._caretaker.run, self._caretaker.evict, *people.tasks]
        serving.tasks += [self._own.run, self._own.claims.run]
        serving.after = [self._following.begin, self._ownership.begin, self._own.claims.begin]
        serving.after += [self._own.marks.resume, self._questions.begin, *people.after]

    async def _lose_patience(self) -> NoReturn:
        while True:
            await self._clock.sleep_until(self._clock.now() + TICK)
            self._flusher.give_up(self._holding.give_up(self._flusher.patience_ended))
            self._notices.tell()

    def _refuse(self, appends: Sequence[Append], refused: Refused) -> None:
        if refused.why == "fenced":
            self._ownership.fenced(appends[0].log.keys.name, appends[0].fence)
        self._holding.refuse(appends, refused)

    def _report_lost(self, appends: Sequence[Append], error: BrokerUnavailable) -> None:
        counts = Counter(append.log.keys.name for append in appends)
        for name, count in counts.items():
            self._notices.lost(name, count, error)
        if not self.draining:
            self._tell_loss({append.log.keys.name for append in appends if append.patient})

    def _tell_loss(self, names: Iterable[str]) -> None:
        """Tell the readers of channels `full`: Redis may not have stored values of the sources."""
        for name in names:
            bid = self._ownership.bids.get(name)
            if bid is not None:
                self._ownership.renew(bid.window)

    def _take_frame(self, topic: bytes, frame: bytes) -> None:
        if not self._may_deliver(topic, frame):
            return
        if topic == self._scripts.keys.everyone.encode():
            self._people.control.take(frame)
        elif topic == self.inbox.topic.encode():
            self.inbox.take(frame)
        elif topic == self._questions.topic.encode():
            self._questions.take(frame)
        elif frame.startswith(b"f"):
            self._ownership.take(frame)
        else:
            self._following.take(topic, frame)

    def _may_deliver(self, topic: bytes, frame: bytes) -> bool:
        """End a connection whose frames come too late for what needs a right."""
        keys = self._scripts.keys
        shared = topic in (self.inbox.topic.encode(), keys.everyone.encode())
        if not shared and not self._following.needs_right(topic):
            return True
        if self._heartbeat.fresh or self.serving.connection is None or frame.startswith(b"p"):
            return True
        self.serving.connection.close("this worker stood still for too long")
        return False

    def leave(self) -> None:
        """Fail the scripts that wait for Redis if Redis is away: the server stops."""
        if self.serving.connection is None:
            self._flusher.give_up_calls()

    async def hand_over(self) -> None:
        """Store the waiting messages within a time limit, and leave the other workers."""
        self._loop = None  # the next start prepares again, even in this loop
        patience = PATIENCE_AT_STOP if self.serving.generation else 0
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._own.end_sources()
                    await self._flusher.drained()
                    await self._depart()
        finally:  # also if the server has no time left
            if self._flusher.waiting:
                _logger.error("%d messages were not stored at the stop", self._flusher.waiting)
            self._flusher.abandon(self._holding.give_up(math.inf), close=True)

    def give_up(self) -> None:
        """Drop the messages that wait to be stored."""
        self._flusher.abandon(self._holding.give_up(math.inf))

    async def _depart(self) -> None:
        if self.serving.connection is not None:
            self._people.depart(self.serving.connection)
        worker, owning = self._heartbeat.depart(), self._ownership.owning
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
            return self._holding.append(log, Item(data, id or ""))
        bid = self._ownership.owned(log)
        append = self._holding.append(log, Item(data, id or ""), bid.fence, patient=True)
        self._own.watch(append, log, bid)
        return append

    # Names

    async def open(self, log: Window, *, make: bool = True) -> Opened:
        """Make the channel, or adopt a channel that every worker makes."""
        spec = log.spec
        reclaims = spec.reclaim and spec.owner is None  # else it lives as long as its process
        owns = not spec.adopt and (spec.sourced or reclaims) and not self.only_publishes
        return await self._naming.open(log, make=make, owns=owns)

    async def find(self, name: str) -> ChannelSpec | None:
        """Return the properties of a channel, if there is one, or was a moment ago."""
        return await self._naming.find(name)

    async def end(self, log: Window, reason: str) -> None:
        """End the channel, after all that was published."""
        await self._holding.end(log, reason)
        self._ownership.ended(log)
        await self._following.finish(log)

    # Reading

    async def follow(self, log: Window) -> None:
        """Fill the window of a site channel, and receive all frames from now on."""
        check_kind(log.spec)
        self._naming.adopt(log, await self._following.follow(log))

    def unfollow(self, log: Window) -> None:
        """Stop receiving the frames of a log."""
        self._following.unfollow(log)
        held = self._holding.find(log)
        self._ownership.leave(log, closed=held is not None and held.closed is not None)

    async def place(self, log: Window, start: Start) -> Placed | Full | Closed | Unknown:
        """Find where a reader begins; the window then has all messages that Redis has."""
        return await self._reading.place(log, start)

    async def recover(self, log: Window, after: int, max_bytes: int) -> list[Message] | None:
        """Read messages that the window does not hold."""
        return await self._reading.recover(log, after, max_bytes)

    def acknowledge(self, log: Window, offset: int) -> None:
        """Report what the reader of an own channel has."""
        self._own.marks.acknowledge(log, offset)

    def skip(self, log: Window, after: int, upto: int) -> None:
        """Report what the reader of an own channel lacks."""
        self._own.marks.skip(log, after, upto)

    async def acknowledged(self, log: Window) -> Progress | None:
        """Ask for what is acknowledged."""
        meta = keys_of(self._scripts.keys, log).meta
        return await self.serving.ask(Call(("HMGET", meta, *PROGRESS), read_progress))

    def mark_sent(self, log: Window, offset: int) -> None:
        """Report what the reader of an own channel was sent."""
        self._own.marks.mark_sent(log, offset)

    def want(self, log: Window, offset: int) -> None:
        """Ask the owner, which may be this worker."""
        self._own.want(log, offset)

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        """Ask all workers."""
        return await self._questions.ask(question, seconds)

    # Ownership

    def bid(self, log: Window, *, continues: bool = False) -> None:
        """Offer to own a channel."""
        held = self._holding.find(log)
        if held is not None:
            keeps = continues or not log.spec.sourced  # without a source nothing is lost
            self._ownership.bid(held.log, log, continues=keeps)

    def release(self, log: Window, *, clean: bool) -> None:
        """Withdraw a bid."""
        self._ownership.release(log, clean=clean)

    def renew(self, log: Window) -> None:
        """Give an owned channel another epoch."""
        self._ownership.renew(log)

    @property
    def connected(self) -> bool:
        """Whether there is a connection to Redis."""
        return self.serving.connection is not None

    @property
    def mixed(self) -> bool:
        """Whether workers declare different names."""
        return self._heartbeat.mixed

    @property
    def elsewhere(self) -> int:
        """How many members of families other workers own, and this worker does not follow."""
        return self._ownership.elsewhere

    @property
    def workers(self) -> int:
        """How many workers were alive at the last heartbeat."""
        return len(self._heartbeat.living)

    def retire(self, log: Window, linger: float) -> bool:
        """End an owned channel once no worker uses it."""
        return self._caretaker.retire(log, linger)

    @property
    def people(self) -> RedisPeople:
        """The sharing of sessions and client processes."""
        return self._people
