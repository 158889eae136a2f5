"""The control log: entries that every worker applies once, in order, and confirms.

Owns the position of this worker in the log, and the confirmations that this worker waits for. A
worker that has missed an entry reads the log before it serves anything else.
Must not know what an entry changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.calls import Call, fresh
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.control_scripts import (
    AGAIN,
    PAGE,
    ControlScripts,
    Heard,
    Row,
    read_frame,
)
from asgi_comet.brokers.redis.entries import Entry, Told, read_entry, write_entry
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.heard import REMEMBERED, REPEATED, Lately
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.probing import Inbox
from asgi_comet.brokers.redis.replies import Reply
from asgi_comet.brokers.redis.serving import Beginning, Serving
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.log_events import event

__all__ = ["Control"]

_logger = logging.getLogger(__name__)

UNCONFIRMED = "Redis went away before all workers confirmed a change, which may have been made"


@dataclass(slots=True)
class _Waiting:
    """A sender that waits until all living workers have applied an entry."""

    done: asyncio.Future[int]
    confirmed: set[str] = field(default_factory=set)
    expected: frozenset[str] | None = None

    def look(self) -> None:
        if self.expected is not None and self.expected <= self.confirmed and not self.done.done():
            self.done.set_result(len(self.confirmed))

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Control:
    """The control log, for one worker.

    Args:
        scripts: The scripts.
        serving: The connection.
        flusher: Runs scripts after all messages that were published before.
        heartbeat: Has the id of the worker, and the living workers.
        inbox: Takes the confirmations.
        clock: The clock.

    Attributes:
        apply: Takes each entry, once.
        on_missed: Called when the log holds some entries no longer that this worker lacks.
        read: Whether the log was read on the present connection.
    """

    def __init__(
        self,
        scripts: ControlScripts,
        serving: Serving,
        flusher: Flusher,
        heartbeat: Heartbeat,
        inbox: Inbox,
        clock: Clock,
    ) -> None:
        self.apply: Callable[[Entry], None] = _ignore
        self.on_missed: Callable[[], None] = _forgive
        self.read: bool = False
        self.heard: Lately[Row] = Lately(clock)
        self._scripts = scripts
        self._serving = serving
        self._flusher = flusher
        self._heartbeat = heartbeat
        self._connection: Connection  # the newest one, on which all frames come
        self._epoch = ""
        self._offset = 0
        self._skipped: set[str] = set()  # the entries of before this worker came
        self._began = 0  # the time of Redis when this worker came, in ms
        self._now = 0  # the time of Redis when the log was last read, in ms
        self._reading = False
        self._last: asyncio.Future[None]
        self._waiting: dict[str, _Waiting] = {}
        inbox.on[b"a"] = self._take_confirmation

    def __len__(self) -> int:
        return len(self._waiting)

    # Telling

    async def tell_all(self, entry: Entry) -> int:
        """Add an entry; return how many workers have applied it: all that are alive.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or could not until all had confirmed.
        """
        await self._serving.connected()
        id_ = fresh() + fresh()
        waiting = self._waiting[id_] = _Waiting(asyncio.get_running_loop().create_future())
        try:
            call = self._tell(Row(0, id_, self._heartbeat.worker, write_entry(entry)))
            asked = self._flusher.call(call, again=True)
            asked.add_done_callback(lambda reply: _expect(waiting, reply))
            return await waiting.done
        finally:
            del self._waiting[id_]

    def check_living(self, living: frozenset[str]) -> None:
        """Wait no more for workers whose heartbeats have ended."""
        for waiting in self._waiting.values():
            if waiting.expected is not None:
                waiting.expected &= living
                waiting.look()

    def _take_confirmation(self, frame: bytes) -> None:
        id_, _, worker = frame[1:].decode().partition(" ")
        waiting = self._waiting.get(id_)
        if waiting is not None:
            waiting.confirmed.add(worker)
            waiting.look()

    # Hearing

    async def forget(self, beginning: Beginning) -> None:
        """Take the log for unread, before the first heartbeat of a connection.

        A worker that begins has no copies, so it skips what the log has. It confirms what comes
        after its first heartbeat: senders wait for it from then on.
        """
        self.read = False
        if not self._epoch:
            await self._skip(beginning.connection)

    async def _skip(self, connection: Connection) -> None:
        """Skip what the log has; remember the entries, which other data may have, too."""
        epoch, offset, top = "", 0, 1
        while offset < top:
            page = await connection.send(self._scripts.hear(epoch, offset, PAGE))
            since = page.now - REMEMBERED * 1000
            self._skipped.update(row.id for row in page.rows if row.at >= since)
            epoch, offset, top = page.epoch, page.first + len(page.rows) - 1, page.top
        self._epoch, self._offset = epoch, offset
        self._began = self._now = page.now

    async def begin(self, beginning: Beginning) -> None:
        """Read what this worker has missed."""
        connection = self._connection = beginning.connection
        connection.subscribe([self._scripts.keys.everyone])
        read = self._read_on(connection)
        while not read.done() or self._reading:
            await read
            read = self._last

    def repeat(self, connection: Connection) -> list[asyncio.Future[frozenset[str]]]:
        """Add the entries again that this worker has lately heard, unless Redis has them."""
        heard = self.heard.since(REPEATED)
        return [connection.send(self._tell(replace(row, sender=AGAIN))) for _, row in heard]

    def _tell(self, row: Row) -> Call[frozenset[str]]:
        entry = read_entry(row.entry)
        told = entry if isinstance(entry, Told) else Told("")
        return self._scripts.tell_all(row, lasting=told.lasting, event=told.event)

    async def run(self, connection: Connection) -> None:
        """Have the senders wait until the connection ends."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            why = f"{UNCONFIRMED}: {connection.closed}"
            for waiting in self._waiting.values():
                waiting.fail(BrokerUnavailable(why, maybe_stored=True))

    def take(self, frame: bytes) -> None:
        """Take a frame with an entry."""
        epoch, offset, row = read_frame(frame)
        if self._reading or (epoch == self._epoch and offset <= self._offset):
            return  # in a page that is on its way, or known
        if (epoch, offset) == (self._epoch, self._offset + 1):
            self._hear(row)
            self._offset = offset
        else:
            self._read_on(self._connection)

    def _read_on(self, connection: Connection) -> asyncio.Future[None]:
        """Ask for the next page, which is taken on arrival, in order with the frames."""
        self._reading, self.read = True, False
        call = self._scripts.hear(self._epoch, self._offset, PAGE)

        def take(reply: Reply) -> None:
            self._take_page(connection, call.read(reply))

        self._last = connection.send(Call(call.command, take, call.script))
        self._last.add_done_callback(partial(_end_on_error, connection))
        return self._last

    def _take_page(self, connection: Connection, page: Heard) -> None:
        rows: Sequence[Row] = page.rows
        if page.epoch != self._epoch:  # of other data, which may be the same
            rows = [row for row in rows if row.at >= self._now - REMEMBERED * 1000]
        elif page.first > self._offset + 1:
            missed = page.first - 1 - self._offset
            _logger.error(
                "%d changes were missed",
                missed,
                extra=event("change.missed", count=missed),
            )
            self.on_missed()
        for row in rows:
            self._hear(row)
        self._epoch, self._now = page.epoch, page.now
        self._offset = page.first + len(page.rows) - 1
        self._reading, self.read = False, True
        if self._offset < page.top:
            self._read_on(connection)

    def _hear(self, row: Row) -> None:
        """Apply an entry, unless it was applied before, and confirm it."""
        if row.id not in self.heard:
            self.heard.add(row.id, row)
            entry = read_entry(row.entry)
            if entry is not None and not self._is_void(entry, row):
                self.apply(entry)
        if row.sender != AGAIN:
            self._connection.send(self._scripts.confirm(row, self._heartbeat.worker))

    def _is_void(self, entry: Entry, row: Row) -> bool:
        """Return whether an event was told first when this worker did not serve yet.

        The worker has admitted each of its clients later, and may have had a reason.
        """
        if not isinstance(entry, Told) or entry.lasting:
            return False  # other data may have undone it
        return row.id in self._skipped or (row.sender == AGAIN and row.at < self._began)


def _expect(waiting: _Waiting, reply: asyncio.Future[frozenset[str]]) -> None:
    error = reply.exception()
    if error is None:
        waiting.expected = reply.result()
        waiting.look()
    else:
        waiting.fail(error)


def _end_on_error(connection: Connection, reply: asyncio.Future[None]) -> None:
    if not reply.cancelled() and reply.exception() is not None:
        connection.close("the control log could not be read")


def _ignore(entry: Entry) -> None:
    """Do nothing: nothing of this worker depends on entries."""


def _forgive() -> None:
    """Do nothing, for the same reason."""
