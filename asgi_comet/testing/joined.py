"""A broker that joins several `Comet`s in one process, and simulates network faults.

For tests without a Redis. Frames between the workers can be held back, lost, repeated and shuffled,
and the store can be disconnected.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import anyio

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.base import Broker, Host
from asgi_comet.brokers.condition import Condition
from asgi_comet.brokers.logs import (
    ChannelSpec,
    Closed,
    Fenced,
    Full,
    Log,
    Opened,
    Placed,
    State,
    Stored,
    Unknown,
)
from asgi_comet.core.messages import Message, Start
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, CometError
from asgi_comet.position import Position
from asgi_comet.testing.joined_bids import JoinedBids
from asgi_comet.testing.joined_claims import Joined, JoinedClaims
from asgi_comet.testing.joined_frames import Frame, Frames
from asgi_comet.testing.joined_outbox import Outbox
from asgi_comet.testing.joined_people import JoinedPeople
from asgi_comet.testing.joined_windows import JoinedWindows
from asgi_comet.testing.store import Event, Record, Store, key_of

__all__ = ["JoinedBroker", "join"]

BEAT = 0.2  # seconds after which a worker checks whether the last frames were lost


def join(count: int, *, people: bool = True) -> list[JoinedBroker]:
    """Return brokers that share one store: one for each `Comet`.

    Args:
        count: How many.
        people: Whether they share sessions and client processes, too.
    """
    store = Store()
    return [JoinedBroker(store, people=people) for _ in range(count)]


class JoinedBroker(Broker, Joined):
    """The broker of one of several `Comet`s that share a store, see `join`.

    Args:
        store: The shared store.
        people: Whether the workers share sessions and client processes, too.
        clock: Tells when to check whether frames were lost.

    Attributes:
        store: The shared store.
    """

    def __init__(self, store: Store, *, people: bool = True, clock: Clock | None = None) -> None:
        self.store: Store = store
        self._clock = clock or MonotonicClock()
        self.shares_people: bool = people
        self._people = (
            JoinedPeople(store, lambda: self.host, lambda: self._down, lambda: self.claims)
            if people
            else None
        )
        self._outbox = Outbox(store, lambda: self.host)
        self._frames = Frames(store.lock)
        self._windows = JoinedWindows(store, lambda: self.host, self._outbox)
        self._bids = JoinedBids(self, self._windows)
        self.claims: JoinedClaims = JoinedClaims(self)
        self._work = anyio.Event()
        self._down = False
        self._losses = 0  # of the connection to the store
        self._up = anyio.Event()

    def bind(self, host: Host) -> None:
        """Bind the broker to a worker, which is one of the store from now on."""
        super().bind(host)
        self.store.brokers.append(self)

    # Faults between the workers

    def hold(self) -> None:
        """Hold back frames to this worker, until `let_go`."""
        self._frames.hold()

    def let_go(self, *, shuffled: bool = False) -> None:
        """Deliver the frames that were held back, in random order if `shuffled`."""
        self._frames.let_go(shuffled=shuffled)
        self._nudge()

    def lose(self, count: int) -> None:
        """Lose the next frames to this worker."""
        self._frames.losing = count

    def repeat(self, times: int) -> None:
        """Deliver each frame that many times."""
        self._frames.times = times

    def disconnect(self) -> None:
        """Disconnect from the store: messages wait, questions raise, frames are lost."""
        self._losses += not self._down
        self._down, self._up = True, anyio.Event()
        self.store.register.changed()

    def reconnect(self) -> None:
        """Connect to the store again."""
        self._down = False
        self.host.run_soon(self._reconnected)
        self._nudge()

    # Called by the store, in any thread

    def post(
        self,
        name: str,
        epoch: str,
        run: tuple[Message, ...] = (),
        closed: str | None = None,
        event: Event | None = None,
    ) -> None:
        """Send a frame to this worker."""
        if self._frames.post(Frame(name, epoch, run, closed, event), down=self._down):
            self._nudge()

    # Called by the worker

    async def run(self) -> None:
        """Store waiting messages, and receive frames, until cancelled."""
        with nullcontext() if self._people is None else self._people.running():
            await self._run()

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._beat)
            await self._serve()

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + BEAT)
            self._nudge()

    async def _serve(self) -> None:
        while True:
            self._work = anyio.Event()
            self.flush()
            self._take_in()
            await self._work.wait()
            if not self._down and self._frames.miss():
                self._check_all()
            if self._people is not None and not self._down:
                self._people.sweep()

    async def hand_over(self) -> None:
        """Store waiting messages; own channels whose sources end with this worker have failed."""
        self.flush()
        self._bids.fail()

    def give_up(self) -> None:
        """Drop the messages that wait for the store."""
        self._outbox.give_up()

    def append(
        self,
        log: Log,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
        state: State | None = None,
        sourced: bool = False,
    ) -> Stored:
        """Send a message to the store."""
        del state  # there are no keyed channels yet
        if sourced and self.store.owner(key_of(log)) is not self:
            raise Fenced(log.name)
        waiting = self._outbox.append(log, data, id)
        self._nudge()
        return waiting

    async def open(self, log: Log, *, make: bool = True) -> Opened:
        """Make the log in the store, or adopt it; then its waiting messages are stored."""
        while self._down:
            await self._up.wait()
        try:
            record = self.store.open(log.spec, log.epoch, make=make)
        except CometError as error:
            self._outbox.refuse(log, error)
            raise
        history = record.history
        if log.spec.owner is not None and self.window(key_of(log)) is None:
            log.reset(history.epoch, history.top + 1)
        self._outbox.accept(log, record)
        if log.spec.owner is not None and log.spec.sourced:
            self.bid(log)  # a reader may ask before the worker bids
        self._nudge()
        return Opened(history.epoch, history.first, history.top)

    async def find(self, name: str) -> ChannelSpec | None:
        """Return the properties of a channel in the store."""
        self._ask()
        record = self.store.find(name)
        return None if record is None else replace(record.spec, closed=record.closed)

    async def follow(self, log: Log) -> None:
        """Fill the window, and receive a frame for each message from now on."""
        self._ask()
        if self.window(key_of(log)) is log:
            return
        with self.store.lock:
            record = self.store.find(key_of(log))
            if record is None:
                raise ChannelClosed(log.name, "ended")
            record.followers.add(self)
            history = record.read(self.host.now())
            log.reset(history.epoch, history.first)
            self._windows.add(log, record)
        self._nudge()

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        """Ask all workers."""
        self._ask()
        return [one.host.answer(question) for one in self.store.brokers]

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self.store.brokers)

    @property
    def people(self) -> JoinedPeople | None:
        """The sharing of sessions and client processes."""
        return self._people

    @property
    def condition(self) -> Condition:
        """The number of this worker in the store, and how often it was disconnected."""
        number = self.store.brokers.index(self)
        return Condition(number, self._losses - self._down, self._losses)

    @property
    def connected(self) -> bool:
        """Whether the store can be reached."""
        return not self._down

    def unfollow(self, log: Log) -> None:
        """Stop receiving frames of a log."""
        if self.window(key_of(log)) is log:
            self.drop(key_of(log))
            self.store.unfollow(key_of(log), self)

    async def place(self, log: Log, start: Start) -> Placed | Full | Closed | Unknown:
        """Locate a start position, after bringing the window up to date."""
        self._ask()
        record = self.record(log) or self.store.find(key_of(log))
        if record is None:
            return Unknown()
        log = self._windows.check(log, record)
        offset = log.locate(start)
        if isinstance(start, Position) and start.epoch == log.epoch and start.offset <= log.top:
            offset = start.offset
        if record.closed is not None and offset == log.top:
            return Closed(record.closed)
        return Full() if offset is None else Placed(offset, log.epoch)

    async def recover(self, log: Log, after: int, max_bytes: int) -> list[Message] | None:
        """Read messages from the store."""
        self._ask()
        with self.store.lock:
            if self.store.find(key_of(log)) is None:
                return None
            history = self.store.read(key_of(log), self.host.now())
            return history.after(after, max_bytes) if history.epoch == log.epoch else None

    async def end(self, log: Log, reason: str) -> None:
        """End the log in the store."""
        self.flush()
        self.store.end(key_of(log), reason)

    def acknowledge(self, log: Log, offset: int) -> None:
        """Record what the client process of an own channel has."""
        self.claims.acknowledge(log.spec.owner or "", {log.name: Position(log.epoch, offset)})

    def mark_sent(self, log: Log, offset: int) -> None:
        """Record what the client process of an own channel was sent."""
        self.claims.mark_sent(log, offset)

    def skip(self, log: Log, after: int, upto: int) -> None:
        """Record what the client process of an own channel lacks."""
        self.claims.skip(log, after, upto)

    async def acknowledged(self, log: Log) -> Progress | None:
        """Return what the client process of an own channel has."""
        self._ask()
        record = self.store.find(key_of(log))
        return None if record is None else record.progress

    def want(self, log: Log, offset: int) -> None:
        """Ask the owner, which may be this worker."""
        self.store.want(key_of(log), offset)

    def window(self, key: str) -> Log | None:
        """Return the window that frames of a log fill."""
        return self._windows.find(key)

    def fill(self, log: Log, record: Record) -> Log:
        """Bring a window up to date, and follow the log from now on; for own channels."""
        return self._windows.add(log, record)

    def record(self, log: Log) -> Record | None:
        """Return the log in the store that a window is of."""
        return self._outbox.records.get(log)

    def drop(self, key: str) -> None:
        """Follow a log no more."""
        self._windows.drop(key)

    def bid(self, log: Log, *, continues: bool = False) -> None:
        """Own the channel once no other worker does."""
        self._bids.add(log, continues=continues)

    def release(self, log: Log, *, clean: bool) -> None:
        """Let another worker own the channel."""
        self._bids.release(log, clean=clean)

    def renew(self, log: Log) -> None:
        """Give the log another epoch."""
        self.flush()
        self._bids.renew(log)

    def retire(self, log: Log, linger: float) -> bool:
        """End the log if no other worker follows it; this worker ends its window in any case."""
        if self.store.followers(key_of(log)) == {self}:
            self.store.end(key_of(log), "ended")
        return False

    def own(self, name: str) -> None:
        """Own a channel from now on; called by the store."""
        self.host.run_soon(partial(self._bids.own, name))

    def _ask(self) -> None:
        if self._down:
            raise BrokerUnavailable("it is disconnected")

    def _nudge(self) -> None:
        self.host.run_soon(self._wake)

    def _wake(self) -> None:
        self._work.set()

    def flush(self) -> None:
        """Store the messages that wait."""
        if not self._down:
            self._outbox.flush()

    def _take_in(self) -> None:
        for frame, lost in self._frames.take():
            if lost:
                self._check_all()
            if frame.event is None:
                self._windows.take(frame)
            else:
                self._take_event(frame.name, frame.event)

    def _take_event(self, name: str, event: Event) -> None:
        if event.kind == "want":
            self._bids.want(name, event.number)
        else:
            self.claims.take(name, event)

    def _reconnected(self) -> None:
        if self._people is not None:
            self._people.found_again()
        self._up.set()
        self._check_all()

    def _check_all(self) -> None:
        self._windows.check_all()
        self.claims.check()
