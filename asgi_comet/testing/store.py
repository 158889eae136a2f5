"""The logs that several workers in one process share, for tests.

Owns the offsets and epochs. Must not know how a frame gets to a worker.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from asgi_comet.brokers.ids import Ids
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.core.aged import make_history
from asgi_comet.core.history import History
from asgi_comet.core.messages import Message, Position
from asgi_comet.errors import ChannelClosed, NonUniqueChannelName

__all__ = ["Follower", "Store"]


class Follower(ABC):
    """A worker that receives frames of logs."""

    @abstractmethod
    def post(
        self, name: str, epoch: str, run: tuple[Message, ...] = (), closed: str | None = None
    ) -> None:
        """Send a frame to the worker. Thread-safe."""

    @abstractmethod
    def own(self, name: str) -> None:
        """Tell the worker that it owns a log from now on. Thread-safe."""


@dataclass(slots=True)
class _Record:
    """One log in the store."""

    spec: ChannelSpec
    history: History
    closed: str | None = None
    ids: Ids = field(default_factory=Ids)
    followers: set[Follower] = field(default_factory=set)
    bidders: list[Follower] = field(default_factory=list)  # the first one is the owner


class Store:
    """The logs that several workers share. Thread-safe."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = threading.RLock()
        self._records: dict[str, _Record] = {}

    def find(self, name: str) -> _Record | None:
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
        history = self._records[name].history
        history.age(now)
        return history

    def why_closed(self, name: str) -> str | None:
        """Return the reason why an existing log has ended; `None` if it has not."""
        return self._records[name].closed

    def open(self, spec: ChannelSpec, *, make: bool) -> History:
        """Make a log, or return the existing one if it may be adopted."""
        with self.lock:
            found = self._records.get(spec.name)
            if found is None or found.closed is not None:
                if not make:
                    raise ChannelClosed(spec.name, "ended")
                self._records[spec.name] = _Record(spec, _history_of(spec))
                return self._records[spec.name].history
            if not (spec.adopt and found.spec.adopt):
                raise NonUniqueChannelName(spec.name)
            return found.history

    def append(self, name: str, data: bytes, id_: str | None, now: float) -> Position:
        """Store a message, and send it to all followers."""
        with self.lock:
            record = self._records.get(name)
            if record is None or record.closed is not None:
                raise ChannelClosed(name, "ended" if record is None else record.closed or "ended")
            epoch = record.history.epoch
            known = None if id_ is None else record.ids.find(id_, now)
            if known is not None:
                return Position(epoch, known)
            record.history.age(now)
            offset = record.history.append(data)
            if id_ is not None:
                record.ids.note(id_, offset, now)
            for broker in record.followers:
                broker.post(name, epoch, (Message(offset, data),))
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
