"""Own channels of client processes on a broker that joins several `Comet`s in one process.

Owns which connection of this worker reads a client process. Must not know sessions, nor which
client processes are open.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Closed, Full, Log, Placed, Unknown
from asgi_comet.brokers.people import Found
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Now, Start
from asgi_comet.errors import ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing.store import Event, Follower, Record, Store, key_of

__all__ = ["Joined", "JoinedClaims"]


class Joined(Follower):
    """The part of a `JoinedBroker` that fills windows."""

    store: Store

    @property
    @abstractmethod
    def host(self) -> Host:
        """The worker."""

    @abstractmethod
    def window(self, key: str) -> Log | None:
        """Return the window that frames of a log fill."""

    @abstractmethod
    def fill(self, log: Log, record: Record) -> Log:
        """Bring a window up to date, and fill it from now on."""

    @abstractmethod
    def record(self, log: Log) -> Record | None:
        """Return the log in the store that a window is of."""

    @abstractmethod
    def drop(self, key: str) -> None:
        """Fill the window of a log no more."""

    @abstractmethod
    def flush(self) -> None:
        """Store the messages that wait."""


class JoinedClaims:
    """The readers of client processes in one worker; see `People`.

    Args:
        broker: The broker of the worker.
    """

    def __init__(self, broker: Joined) -> None:
        self._broker = broker
        self._store = broker.store
        self._numbers: dict[str, int] = {}  # the last reader of this worker, by client process
        self._left: set[str] = set()  # client processes whose last reader has left

    def reads(self, process: str, reader: int) -> bool:
        """Return whether a connection reads the own channels of a client process."""
        return self._store.readers.get(process) == (self._broker, reader)

    def claim(
        self, process: str, reader: int, came: float, starts: Mapping[str, Start]
    ) -> dict[str, Found]:
        """Let a connection read own channels of an open client process."""
        with self._store.lock:
            if not self._take_over(process, reader, came):
                self._replaced(process, reader)
                return dict.fromkeys(starts, Found(None, Unknown()))
            return {name: self._find(process, name, start) for name, start in starts.items()}

    def flush(self) -> None:
        """Store the messages that wait."""
        self._broker.flush()

    def unclaim(self, process: str, reader: int) -> None:
        """Record that a connection reads no more; the windows go on until another worker reads."""
        if self._numbers.get(process) == reader:
            self._left.add(process)

    def acknowledge(self, process: str, positions: Mapping[str, Position]) -> None:
        """Record what a client process has."""
        for name, position in positions.items():
            record = self._store.find(f"{process}\n{name}")
            if record is not None and _holds(record, position):
                record.acknowledge(position.offset)

    def mark_sent(self, log: Log, offset: int) -> None:
        """Record what a client process was sent."""
        record = self._store.find(key_of(log))
        if record is not None and _holds(record, Position(log.epoch, offset)):
            record.sent = max(record.sent, offset)

    def skip(self, log: Log, after: int, upto: int) -> None:
        """Record what a client process lacks."""
        record = self._store.find(key_of(log))
        if record is not None and _holds(record, Position(log.epoch, upto)):
            record.skip(after, upto)

    def load(self, process: str) -> bytes | None:
        """Return the state of the registration protocol."""
        return self._store.states.get(process)

    def save(self, process: str, reader: int, state: bytes) -> bool:
        """Store the state of the registration protocol if a reader still reads."""
        with self._store.lock:
            reads = self.reads(process, reader)
            if reads:
                self._store.states[process] = state
            return reads

    def take(self, name: str, event: Event) -> None:
        """Take an event of the store: of a client process, or of one of its channels."""
        if event.kind == "replaced":
            self._replaced(name, event.number)
        else:
            self._open(*name.split("\n"))

    def check(self) -> None:
        """Find out what this worker was not told, because frames were lost."""
        with self._store.lock:
            for process, reader in list(self._numbers.items()):
                if not self.reads(process, reader):
                    self._replaced(process, reader)
                    continue
                for record in self._store.owned(process):
                    if self._broker in record.followers:
                        self._open(process, record.spec.name)

    def _take_over(self, process: str, reader: int, came: float) -> bool:
        """Make a connection the reader; return `False` if another one, which came later, reads."""
        if self.reads(process, reader):
            return True
        former = self._store.readers.get(process)
        if self._numbers.get(process) == reader or came < self._store.came.get(process, came):
            return False
        if former is not None:
            self._tell(process, *former)
        self._numbers[process] = reader
        self._left.discard(process)
        self._store.readers[process] = self._broker, reader
        self._store.came[process] = came
        self._store.expected[process] = set()
        for record in self._store.owned(process):
            record.followers.clear()
        return True

    def _tell(self, process: str, worker: Follower, reader: int) -> None:
        """Tell a connection that another one reads from now on."""
        if worker is not self._broker:
            worker.post(process, "", event=Event("replaced", reader))
        elif process not in self._left:
            self._broker.host.people.replaced(process, reader)

    def _replaced(self, process: str, reader: int) -> None:
        left = False
        if self._numbers.get(process) == reader:
            del self._numbers[process]
            left = process in self._left
            for record in self._store.owned(process):
                self._broker.drop(key_of(record.spec))
        if not left:
            self._broker.host.people.replaced(process, reader)

    def _find(self, process: str, name: str, start: Start) -> Found:
        record = self._store.find(f"{process}\n{name}")
        if record is None:
            return self._expect(process, name, start)
        after = _place(record, start)
        if after is not None and isinstance(start, Position):
            record.acknowledge(after)
        begin = record.history.top if after is None else after
        window = self._broker.window(key_of(record.spec))
        if window is not None and window.epoch == record.history.epoch and begin < window.first - 1:
            self._broker.drop(key_of(record.spec))  # which makes the window begin there
        window = self._fill(record, begin)
        if after is None:
            return Found(window, Full(), record.progress)
        if record.closed is not None and after == record.history.top:
            return Found(window, Closed(record.closed), record.progress)
        return Found(window, Placed(after, record.history.epoch), record.progress)

    def _expect(self, process: str, name: str, start: Start) -> Found:
        past = self._store.past.setdefault(process, set())
        if not isinstance(start, Position):
            past.discard(name)
        if name in past:
            return Found(None, Closed("ended"))
        self._store.expected[process].add(name)
        return Found(None, Unknown())

    def _open(self, process: str, name: str) -> None:
        """Fill the window on a channel that the reader has waited for."""
        record = self._store.find(f"{process}\n{name}")
        if record is not None and process in self._numbers:
            self._fill(record, record.acknowledged)

    def _fill(self, record: Record, after: int) -> Log:
        broker, key = self._broker, key_of(record.spec)
        record.followers.add(broker)
        spec = replace(record.spec, closed=record.closed)
        window = broker.host.people.window(spec)
        before = None if window is None else broker.record(window)
        if window is not None and before is not None and before is not record:
            broker.host.ended(window, before.closed or "ended")
            window = broker.host.people.window(spec)
        if window is None:
            raise ProcessClosed(record.spec.owner or "")
        if broker.window(key) is not window:
            window.reset(record.history.epoch, after + 1)
        return broker.fill(window, record)


def _holds(record: Record, position: Position) -> bool:
    history = record.history
    return position.epoch == history.epoch and position.offset <= history.top


def _place(record: Record, start: Start) -> int | None:
    """Return where a reader begins; `None` if its first message is no longer held."""
    history = record.history
    match start:
        case Now():
            after = history.top
        case Last(count):
            after = max(history.top - count, history.first - 1)
        case First() | Position() if start == NEXT_INCARNATION or isinstance(start, First):
            after = record.acknowledged
        case _:
            after = start.offset if _holds(record, start) else -1
    return after if after >= history.first - 1 and record.closed != "full" else None
