"""The logs that several workers in one process share, for tests.

Owns the offsets and epochs. Must not know how a frame gets to a worker.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.ids import Ids
from asgi_comet.brokers.logs import ChannelSpec, Log
from asgi_comet.core.aged import make_history
from asgi_comet.core.history import History
from asgi_comet.core.messages import Message
from asgi_comet.errors import ChannelClosed, ChannelFull, NonUniqueChannelName, ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing.register import Register
from asgi_comet.testing.town import Town

__all__ = ["Event", "Follower", "Record", "Store", "key_of"]


def key_of(log: Log | ChannelSpec) -> str:
    """Return the name of a log in the store: own channels of two client processes may share one."""
    spec = log if isinstance(log, ChannelSpec) else log.spec
    return spec.name if spec.owner is None else f"{spec.owner}\n{spec.name}"


@dataclass(frozen=True, slots=True)
class Event:
    """News for one worker that is not of a window.

    Attributes:
        kind: `replaced`: another connection reads; `made`: an expected channel was made; `want`: a
            reader asks for messages.
        number: The number of the former reader, or the offset that is asked for.
    """

    kind: str
    number: int = 0


class Follower(ABC):
    """A worker that receives frames of logs."""

    @abstractmethod
    def post(
        self,
        name: str,
        epoch: str,
        run: tuple[Message, ...] = (),
        closed: str | None = None,
        event: Event | None = None,
    ) -> None:
        """Send a frame to the worker. Thread-safe."""

    @abstractmethod
    def own(self, name: str) -> None:
        """Tell the worker that it owns a log from now on. Thread-safe."""


@dataclass(slots=True)
class Record:
    """One log in the store."""

    spec: ChannelSpec
    history: History
    closed: str | None = None
    ids: Ids = field(default_factory=Ids)
    followers: set[Follower] = field(default_factory=set)
    bidders: list[Follower] = field(default_factory=list)  # the first one is the owner
    sent: int = 0  # of an own channel: the highest offset sent to its client process
    acknowledged: int = 0  # of an own channel: the highest offset that its client process has
    skipped: tuple[int, int] = (0, 0)  # of an own channel: see `Progress`

    def fills(self, size: int) -> bool:
        """Return whether a message would displace one that was never sent."""
        return self.spec.kind == "process" and self.history.displaced_by(size) > self.sent

    def read(self, now: float) -> History:
        """Return the messages, without those that are too old."""
        self.history.age(now)
        return self.history

    def acknowledge(self, offset: int) -> None:
        """Drop what the client process of an own channel has."""
        self.sent, self.acknowledged = max(self.sent, offset), max(self.acknowledged, offset)
        self.history.drop_through(offset)

    def skip(self, after: int, upto: int) -> None:
        """Record what the client process of an own channel lacks, see `Broker.skip`."""
        if upto > self.skipped[1]:
            if self.acknowledged < upto:
                after = max(after, self.acknowledged)
            self.skipped = min(after, self.skipped[0]) if self.skipped[1] else after, upto

    @property
    def progress(self) -> Progress:
        """How far the client process of an own channel has read."""
        return Progress(self.history.epoch, self.sent, self.acknowledged, self.skipped)


class Store:
    """The logs that several workers share. Thread-safe.

    Attributes:
        lock: Guards everything in the store.
        town: The sessions and client processes.
        register: The workers that are told of changes of these.
        brokers: The brokers of the workers.
    """

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = threading.RLock()
        self.brokers: list[Broker] = []
        self.town: Town = Town()
        self.register: Register = Register(self.lock)
        self._records: dict[str, Record] = {}
        self.readers: dict[str, tuple[Follower, int]] = {}  # by client process
        self.came: dict[str, float] = {}  # when these readers came, by client process
        self.expected: dict[str, set[str]] = {}  # names of own channels, by client process
        self.past: dict[str, set[str]] = {}  # names of forgotten own channels, likewise
        self.states: dict[str, bytes] = {}  # of the registration protocol, by client process
        self.attending: dict[str, dict[tuple[str, str], None]] = {}  # notifiers and keys, likewise

    def find(self, name: str) -> Record | None:
        """Return the log of a channel."""
        return self._records.get(name)

    def unfollow(self, name: str, broker: Follower) -> None:
        """Stop sending a broker frames of a log."""
        with self.lock:
            self._records[name].followers.discard(broker)

    def followers(self, name: str) -> set[Follower]:
        """Return the brokers of the workers that follow a log."""
        with self.lock:
            record = self._records.get(name)
            return set() if record is None else set(record.followers)

    def read(self, name: str, now: float) -> History:
        """Return the messages of an existing log, without those that are too old."""
        return self._records[name].read(now)

    def why_closed(self, name: str) -> str | None:
        """Return the reason why an existing log has ended; `None` if it has not."""
        return self._records[name].closed

    def owned(self, process: str) -> list[Record]:
        """Return the own channels of a client process."""
        return [record for record in self._records.values() if record.spec.owner == process]

    def forget(self, key: str) -> None:
        """Forget an own channel that has ended, but remember its name."""
        with self.lock:
            spec = self._records.pop(key).spec
            self.past.setdefault(spec.owner or "", set()).add(spec.name)

    def open(self, spec: ChannelSpec, epoch: str, *, make: bool) -> Record:
        """Make a log, or return the existing one if it may be adopted.

        Args:
            spec: The properties of the channel.
            epoch: The epoch of a new own channel.
            make: Whether to make the log, if there is none.
        """
        with self.lock:
            if spec.owner is not None and spec.owner not in self.town.processes:
                raise ProcessClosed(spec.owner)
            found = self._records.get(key_of(spec))
            if found is None or found.closed is not None:
                if not make:
                    raise ChannelClosed(spec.name, "ended")
                record = self._records[key_of(spec)] = Record(spec, _history_of(spec))
                if spec.owner is not None:
                    record.history.reset(epoch, 1)
                    self._tell_reader(record, spec.owner)
                return record
            if not (spec.adopt and found.spec.adopt):
                raise NonUniqueChannelName(spec.name)
            return found

    def _tell_reader(self, record: Record, owner: str) -> None:
        """Tell the reader of a client process of a channel that it may wait for."""
        self.past.get(owner, set()).discard(record.spec.name)
        follower, _ = self.readers.get(owner, (None, 0))
        if follower is not None and record.spec.name in self.expected.get(owner, ()):
            self.expected[owner].discard(record.spec.name)
            record.followers.add(follower)
            follower.post(key_of(record.spec), record.history.epoch, event=Event("made"))

    def append(self, record: Record, data: bytes, id_: str | None, now: float) -> Position:
        """Store a message, and send it to all followers."""
        key, name = key_of(record.spec), record.spec.name
        with self.lock:
            if record.closed is not None:
                full = record.closed == "full"
                raise ChannelFull(name) if full else ChannelClosed(name, record.closed)
            epoch = record.history.epoch
            known = None if id_ is None else record.ids.find(id_, now)
            if known is not None:
                return Position(epoch, known)
            record.read(now)
            if record.fills(len(data)):
                record.history.drop_through(record.history.top)
                self.end(key, "full")
                raise ChannelFull(name)
            offset = record.history.append(data)
            if id_ is not None:
                record.ids.note(id_, offset, now)
            for broker in record.followers:
                broker.post(key, epoch, (Message(offset, data),))
            return Position(epoch, offset)

    def end(self, name: str, reason: str) -> None:
        """End a log, and tell all followers. Idempotent."""
        with self.lock:
            record = self._records.get(name)
            if record is None or record.closed is not None:
                return
            record.closed = reason
            for broker in record.followers:
                broker.post(name, record.history.epoch, closed=reason)

    def owner(self, name: str) -> Follower | None:
        """Return the owner of a log."""
        record = self._records.get(name)
        return record.bidders[0] if record is not None and record.bidders else None

    def bid(self, name: str, broker: Follower) -> None:
        """Add a worker to those that offer to own a log. Idempotent."""
        with self.lock:
            bidders = self._records[name].bidders
            if broker not in bidders:
                bidders.append(broker)
                if bidders == [broker]:
                    broker.own(name)

    def release(self, name: str, broker: Follower) -> None:
        """Remove a worker from those that offer to own a log. Idempotent."""
        with self.lock:
            bidders = self._records[name].bidders
            owned = bidders[:1] == [broker]
            if broker in bidders:
                bidders.remove(broker)
            if owned and bidders:
                bidders[0].own(name)

    def want(self, key: str, offset: int) -> None:
        """Ask the owner of a log for messages."""
        owner = self.owner(key)
        if owner is not None:
            owner.post(key, "", event=Event("want", offset))

    def renew(self, name: str, *, tell: bool = False) -> None:
        """Give a log another epoch, like a store that has lost messages.

        Args:
            name: The log.
            tell: Whether the followers are told at once.
        """
        with self.lock:
            record = self._records[name]
            top = record.history.top
            record.history = _history_of(record.spec)
            record.history.reset(record.history.epoch, top + 1)
            for broker in record.followers if tell else ():
                broker.post(name, record.history.epoch)


def _history_of(spec: ChannelSpec) -> History:
    return make_history(size=spec.size, max_bytes=spec.max_bytes, max_age=spec.max_age)
