"""The logs that a worker follows: subscribed to, filled, and checked when in doubt.

Owns the table of replicas, the new reads where frames may have been lost, and the bound of all
windows in bytes. Must not know how connections are made, nor the publishers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.holding import TOPS, Holding
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.records import keys_of, name_of
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.replies import Standing
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Beginning, Serving
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message
from asgi_comet.errors import BrokerUnavailable, CometError
from asgi_comet.position import Position

__all__ = ["Following"]

T = TypeVar("T")

QUIET = 60.0  # seconds without a frame, after which the worker asks where a log stands
KEEP = 24 * 3600.0  # seconds between two calls that keep the records of quiet logs
AGAIN = 0.2  # seconds until an opened channel is read again
ENOUGH = 0.9  # of the bound, down to which windows are cut


class Following:
    """The replicas of a worker.

    Args:
        host: The worker, which owns the windows.
        scripts: The scripts.
        serving: The connection.
        holding: Opens channels again.
        clock: The clock.
        window_bytes: How many bytes all windows hold at most, together.

    Attributes:
        on_moved: Called with a channel that has another epoch.
        on_own: Called with a replica of an own channel that has new messages.
        on_left: Called with a replica of an own channel that is filled no more.
    """

    def __init__(
        self,
        host: Host,
        scripts: Scripts,
        serving: Serving,
        holding: Holding,
        clock: Clock,
        window_bytes: int,
    ) -> None:
        self._host = host
        self._scripts = scripts
        self._serving = serving
        self._holding = holding
        self._clock = clock
        self._window_bytes = window_bytes
        self.on_moved: Callable[[str], None] = _ignore
        self.on_own: Callable[[Replica], None] = _ignore
        self.on_left: Callable[[Replica], None] = _ignore
        self._bytes = 0
        self._keep_at = clock.now() + KEEP
        self._connection: Connection | None = None  # which receives the frames
        self._by_name: dict[str, Replica] = {}
        self._by_topic: dict[bytes, Replica] = {}
        self._own: dict[bytes, Replica] = {}  # own channels, whose frames come to the inbox

    def find(self, name: str) -> Replica | None:
        """Return the replica of a channel, by its name in the scripts."""
        return self._by_name.get(name)

    def needs_right(self, topic: bytes) -> bool:
        """Return whether not every client may read the channel of a topic."""
        replica = self._by_topic.get(topic)
        return replica is not None and replica.log.spec.guard != ""

    async def follow(self, window: Window) -> Replica:
        """Fill a window, and receive all frames from now on.

        For a channel that this worker has opened, the call outlasts any absence of Redis.

        Raises:
            CometError: The log could not be read, or does not exist.
        """
        replica = self._by_name.get(name_of(window))
        if replica is None or replica.log is not window:
            patient = self._holding.find(window) is not None
            connection = None if patient else await self._serving.connected()
            replica = self._add(window, connection or self._connection)
        while replica.empty:
            try:
                await self.catch_up(replica)
            except CometError as error:
                if not _is_passing(error) or self._holding.find(window) is None:
                    self.unfollow(window)
                    raise
                await self._sleep(AGAIN)
        return replica

    def _add(self, window: Window, connection: Connection | None) -> Replica:
        held = self._holding.find(window)
        keys = held.log.keys if held else keys_of(self._scripts.keys, window)
        replica = self._make(window, keys)
        replica.strict = held is None
        self._by_topic[keys.topic.encode()] = replica
        if connection is not None:
            connection.subscribe([keys.topic])
        return replica

    def add_own(self, window: Window, keys: ChannelKeys) -> Replica:
        """Add the replica of an own channel, in place of a former one."""
        replica = self._make(window, keys)
        self._own[keys.topic.encode()] = replica
        return replica

    def _make(self, window: Window, keys: ChannelKeys) -> Replica:
        former = self._by_name.get(keys.name)
        if former is not None:
            self._remove(former)
        reopen = self._holding.reopen
        replica = Replica(window, keys, self, self._scripts, reopen, self._weigh)
        self._by_name[keys.name] = replica
        return replica

    def unfollow(self, window: Window) -> None:
        """Stop receiving the frames of a log."""
        self._holding.leave(window)
        replica = self._by_name.get(name_of(window))
        if replica is not None and replica.log is window:
            self._remove(replica)
            if self._connection is not None and not replica.keys.process:
                self._connection.unsubscribe([replica.keys.topic])

    def drop_own(self, replica: Replica) -> None:
        """Stop filling a window on an own channel; the channel is still held. Idempotent."""
        if not replica.stopped:
            self._remove(replica)

    def _remove(self, replica: Replica) -> None:
        topics = self._own if replica.keys.process else self._by_topic
        del self._by_name[replica.keys.name], topics[replica.keys.topic.encode()]
        self._bytes -= replica.bytes
        replica.stop()
        if replica.keys.process:
            self.on_left(replica)

    async def catch_up(self, replica: Replica) -> None:
        """Read all messages into a window that the log has now.

        Raises:
            CometError: The log could not be read, or does not exist.
        """
        connection = await self._serving.connected()
        caught_up = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            if not caught_up.done():
                caught_up.set_result(error)

        replica.catch_up(connection, done)
        error = await caught_up
        if error is not None:
            raise error

    async def finish(self, window: Window) -> None:
        """Return once a window has all messages of a channel that was to end."""
        replica = self._by_name.get(name_of(window))
        while replica is not None and replica.log is window and not replica.stopped:
            try:
                await self.catch_up(replica)
            except CometError as error:
                if not _is_passing(error):
                    return
            else:
                return

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.now() + seconds)

    # Checks

    async def begin(self, beginning: Beginning) -> None:
        """Subscribe to all topics on a new connection, and read missed messages.

        Most windows on own channels get theirs when the readers claim them again.
        """
        self._connection = beginning.connection
        if self._by_topic:
            beginning.connection.subscribe([topic.decode() for topic in self._by_topic])
        pinned = [one for one in self._own.values() if one.pinned]
        parts = _divide([*self._by_topic.values(), *pinned])
        await asyncio.gather(*(self._check(beginning.connection, part) for part in parts))

    async def watch(self, connection: Connection) -> NoReturn:
        """Ask regularly where quiet logs stand, and keep their records in Redis."""
        while True:
            parts = self._find_quiet()
            keeps = self._clock.now() >= self._keep_at
            if keeps:
                self._keep_at = self._clock.now() + KEEP
            for names in parts:
                await self._sleep(QUIET / len(parts))
                quiet = [one for one in self._find_all(names) if one.quiet]
                await self._check(connection, quiet)
                if keeps:
                    self._keep(connection, quiet)

    def _keep(self, connection: Connection, part: Sequence[Replica]) -> None:
        """Let the records of quiet channels last, which end if they are not used for a month."""
        for held in filter(None, [self._holding.find(replica.log) for replica in part]):
            connection.send(self._scripts.keep(held.log))

    def _find_quiet(self) -> list[list[str]]:
        """Return the names of logs without a frame since the last call, in parts."""
        quiet = [name for name, one in self._by_name.items() if one.quiet]
        for one in self._by_name.values():
            one.quiet = True
        return _divide(quiet) or [[]]

    def _find_all(self, names: Sequence[str]) -> list[Replica]:
        return [self._by_name[name] for name in names if name in self._by_name]

    async def _check(self, connection: Connection, part: Sequence[Replica]) -> None:
        """Compare windows with their logs, and read missing messages."""
        if not part:
            return
        tops = await connection.send(self._scripts.tops([one.keys for one in part]))
        for replica, standing in zip(part, tops.logs, strict=True):
            if replica.stopped:
                continue
            if standing is None and not self._serving.reopens:
                self.ended(replica.log, "ended")
            elif not _is_up(replica, standing, tops.generation):
                replica.catch_up(connection)

    def take(self, topic: bytes, frame: bytes) -> None:
        """Take a frame in."""
        replica = self._by_topic.get(topic)
        if replica is not None and self._connection is not None:
            replica.take(self._connection, frame)

    def take_own(self, name: bytes, frame: bytes) -> bool:
        """Take a frame about an own channel; return whether there is a window on the channel."""
        replica = self._own.get(name)
        if replica is not None and self._connection is not None:
            replica.take(self._connection, frame)
        return replica is not None

    def offer(self, replica: Replica, position: Position, data: bytes) -> None:
        """Add a message that this worker has stored to the window on an own channel."""
        assert self._connection is not None  # noqa: S101 - for the type checker
        replica.offer(self._connection, position, data)

    # Called by the replicas

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._host.now()

    def received(self, log: Window, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages to a window."""
        return self._host.received(log, epoch, first, run)

    def moved(self, log: Window, epoch: str, first: int, began: int) -> Window:
        """Return the window of another epoch; publishing on both windows is the same."""
        new = self._host.moved(log, epoch, first, began)
        if new is not log:
            self._holding.move(log, new)
        self.on_moved(name_of(log))
        return new

    def cut(self, log: Window, first: int) -> None:
        """Restart a window at an offset."""
        self._host.cut(log, first)

    def ended(self, log: Window, reason: str) -> None:
        """Stop following a channel that has ended."""
        self._holding.close(log, reason)
        self.unfollow(log)
        self._host.ended(log, reason)

    # The bound of all windows

    def _weigh(self, replica: Replica) -> None:
        if replica.keys.process:
            self.on_own(replica)
        self._bytes += replica.weigh()
        if self._bytes > self._window_bytes:
            self._cut_back()

    def _cut_back(self) -> None:
        """Drop the messages of the windows that have not been read the longest."""
        for replica in sorted(self._by_name.values(), key=lambda one: one.log.read_at):
            if self._bytes <= self._window_bytes * ENOUGH:
                return
            if not replica.pinned:
                replica.log.drop()
                self._bytes += replica.weigh()


def _ignore(_: object) -> None:
    """Do nothing: this worker owns no channel."""


def _divide(every: list[T]) -> list[list[T]]:
    return [every[begin : begin + TOPS] for begin in range(0, len(every), TOPS)]


def _is_passing(error: CometError) -> bool:
    """Return whether another connection may succeed."""
    return isinstance(error, BrokerUnavailable) and not isinstance(error, ReplyError)


def _is_up(replica: Replica, standing: Standing | None, generation: str) -> bool:
    """Return whether a window has all messages of a live log that has lost none."""
    log = replica.log
    return (
        standing is not None
        and not standing.closed
        and not replica.empty
        and (standing.generation, standing.making) == (generation, replica.making)
        and (standing.epoch, standing.top) == (log.epoch, log.top)
    )
