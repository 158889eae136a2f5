"""The audience of the brokers that join several `Comet`s in one process, for tests.

Owns what becomes of a message to many own channels. Must not know notifiers, nor how a worker is
told of a message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from anyio.lowlevel import checkpoint

from asgi_comet.brokers.audience import Audience, Listening, Progress
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, ChannelFull, ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing.store import Record, Store

__all__ = ["JoinedAudience"]

PART = 100  # client processes that one part of an answer has


class JoinedAudience(Audience):
    """The client processes by key, for one worker.

    Args:
        store: The shared store.
        check_up: Raises if the store cannot be reached.
        flush: Stores the messages that this worker has published.
        now: Returns the time, in seconds.
    """

    def __init__(
        self,
        store: Store,
        check_up: Callable[[], None],
        flush: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._check_up = check_up
        self._flush = flush
        self._now = now

    async def listen(self, process: str, notifier: str, key: str) -> None:
        """Add a client process to those that listen on a key."""
        self._check_up()
        with self._store.lock:
            if process not in self._store.town.processes:
                raise ProcessClosed(process)
            record = self._find(process, f"~{notifier}")
            if record is None or record.closed is not None:
                raise ChannelClosed(f"~{notifier}", "ended")
            self._store.attending.setdefault(process, {})[notifier, key] = None
        await checkpoint()

    async def unlisten(self, process: str, notifier: str, key: str) -> None:
        """Remove a client process from those that listen on a key."""
        self._check_up()
        with self._store.lock:
            self._store.attending.get(process, {}).pop((notifier, key), None)
        await checkpoint()

    async def listeners(self, notifier: str, key: str) -> AsyncIterator[Sequence[Listening]]:
        """Return all client processes that listen on a key, in parts."""
        self._check_up()
        with self._store.lock:
            attending = self._store.attending.items()
            found = [process for process, keys in attending if (notifier, key) in keys]
        for begin in range(0, len(found), PART):
            await checkpoint()
            self._check_up()
            yield self._look_up(found[begin : begin + PART])

    def _look_up(self, processes: Sequence[str]) -> list[Listening]:
        with self._store.lock:
            town = self._store.town
            open_ = [town.processes[one] for one in processes if one in town.processes]
            return [Listening(p.id, p.session, town.state(p.session).user) for p in open_]

    async def tell(
        self, name: str, processes: Sequence[str], data: bytes
    ) -> Sequence[Position | None]:
        """Append one message to the own channels of many client processes."""
        self._check_up()
        with self._store.lock:
            self._flush()
            told = [self._tell(name, process, data) for process in processes]
        await checkpoint()
        return told

    async def tell_each(
        self, name: str, messages: Sequence[tuple[str, bytes]]
    ) -> Sequence[Position | BrokerUnavailable | None]:
        """Append messages, each to the own channel of one client process."""
        self._check_up()
        with self._store.lock:
            self._flush()
            told = [self._tell(name, process, data) for process, data in messages]
        await checkpoint()
        return told

    def _tell(self, name: str, process: str, data: bytes) -> Position | None:
        record = self._find(process, name)
        if record is None or process not in self._store.town.processes:
            return None
        try:
            return self._store.append(record, data, None, self._now())
        except (ChannelClosed, ChannelFull):
            self._silence(name, process)
            return None

    async def overflow(self, name: str, process: str) -> None:
        """End the channel of a client process as full."""
        self._check_up()
        with self._store.lock:
            self._flush()
            record = self._find(process, name)
            if record is not None and record.closed is None:
                record.history.drop_through(record.history.top)
                self._store.end(f"{process}\n{name}", "full")
            self._silence(name, process)
        await checkpoint()

    async def progress(self, name: str, processes: Sequence[str]) -> Sequence[Progress | None]:
        """Return how far clients have read their channels of a name."""
        await checkpoint()
        self._check_up()
        with self._store.lock:
            return [_progress_of(self._find(process, name)) for process in processes]

    def _find(self, process: str, name: str) -> Record | None:
        return self._store.find(f"{process}\n{name}")

    def _silence(self, name: str, process: str) -> None:
        """Let a client process listen on no key of a notifier any more."""
        keys = self._store.attending.get(process, {})
        for one in [one for one in keys if f"~{one[0]}" == name]:
            del keys[one]


def _progress_of(record: Record | None) -> Progress | None:
    if record is None:
        return None
    return record.progress
