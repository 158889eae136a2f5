"""The windows of a worker on logs in Redis: filled by frames, repaired where a frame is missing.

Owns that a window never skips a message: after a frame that does not continue the window, the
worker reads the log. Must not know how connections are made, nor the publishers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from asgi_comet.brokers.logs import Log
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.pages import Page
from asgi_comet.brokers.redis.replies import Gone, Reply, read_run
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.aged import Dated
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Last, Message, Start
from asgi_comet.errors import BrokerUnavailable, ChannelClosed
from asgi_comet.position import Position

__all__ = ["Owner", "Replica", "read_frame"]

Done = Callable[[Exception | None], None]


Reopen = Callable[[Connection, Log], bool]
"""Opens a channel again that Redis has lost; returns false if the channel has ended."""


class Owner(Protocol):
    """The functions of a `Host` that a replica calls."""

    def now(self) -> float:
        """Return the time, in seconds."""

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages to the window."""

    def moved(self, log: Log, epoch: str, first: int, began: int) -> Log:
        """Return the window that goes on in another epoch."""

    def cut(self, log: Log, first: int) -> None:
        """Restart the window at an offset."""

    def ended(self, log: Log, reason: str) -> None:
        """Record that the channel has ended."""


class Replica:
    """One window that is followed.

    Args:
        log: The window.
        keys: The keys of its channel.
        owner: The owner of the window.
        scripts: The scripts.
        reopen: Opens the channel again.
        grown: Called when the window may have more messages.

    Attributes:
        log: The window; another one, once the log has another epoch.
        making: The token of the channel's making; `None` before the first page.
        empty: Whether nothing was ever read.
        quiet: Whether nothing was heard of the log since this was set.
        stopped: Whether the worker follows the log no more.
        ended: The reason why the channel has ended.
        bytes: How many bytes the window held at the last call of `weigh`.
        adopted: Whether the worker holds the channel only because the worker follows it.
        pinned: Whether the worker needs the messages of the window, which `Log.drop` removes.
        strict: Whether the channel ends for this worker if it has another guard than the window.
    """

    __slots__ = (
        "_aged",
        "_behind",
        "_grown",
        "_owner",
        "_reading",
        "_reopen",
        "_reopened",
        "_scripts",
        "_waiting",
        "adopted",
        "bytes",
        "empty",
        "ended",
        "keys",
        "log",
        "making",
        "pinned",
        "quiet",
        "stopped",
        "strict",
    )

    def __init__(
        self,
        log: Log,
        keys: ChannelKeys,
        owner: Owner,
        scripts: Scripts,
        reopen: Reopen,
        grown: Callable[[Replica], None] | None = None,
    ) -> None:
        self.log: Log = log
        self.keys: ChannelKeys = keys
        self.making: str | None = None
        self.empty: bool = True
        self.quiet: bool = False
        self.stopped: bool = False
        self.ended: str | None = None
        self.bytes: int = 0
        self.adopted: bool = False
        self.pinned: bool = False
        self.strict: bool = False
        self._owner = owner
        self._scripts = scripts
        self._reopen = reopen
        self._grown = grown or _ignore
        self._aged = False
        self._reading: Connection | None = None  # on which a page is under way
        self._behind = True  # whether there are messages to read
        self._reopened = False  # whether the last page found no channel
        self._waiting: list[Done] = []

    def stop(self) -> None:
        """Stop reading; the waiters of `catch_up` get `ChannelClosed`."""
        self.stopped = True
        self._finish(ChannelClosed(self.log.name, "ended") if self._waiting else None)

    def proves(self, start: Position) -> bool:
        """Return whether the window has all messages after a position, which is one of its own."""
        log = self.log
        if self.stopped or self.empty or self._behind or self._reading is not None:
            return False
        return start.epoch == log.epoch and log.first - 1 <= start.offset <= log.top

    def weigh(self) -> int:
        """Return by how many bytes the window has grown since the last call."""
        before, self.bytes = self.bytes, self.log.held_bytes
        return self.bytes - before

    def catch_up(self, connection: Connection, done: Done | None = None) -> None:
        """Read missing messages.

        Args:
            connection: The connection that receives the frames of the log.
            done: Called once the window has all messages that were stored before this call.
        """
        self._behind = True
        if done is not None:
            self._waiting.append(done)
        if self.stopped:
            self.stop()
        elif self._reading is not connection:
            self._read(connection)

    def take(self, connection: Connection, frame: bytes) -> None:
        """Take a frame."""
        self.quiet = False
        if self.empty or not frame.startswith(b"m"):
            self.catch_up(connection)
            return
        epoch, first, rows = read_frame(frame)
        run = read_run(first, rows, aged=self._aged)
        self._offer(connection, epoch, first, run)

    def offer(self, connection: Connection, position: Position, data: bytes) -> None:
        """Take a message of which this worker has no frame, because this worker has stored it."""
        if self.empty:
            self.catch_up(connection)
        else:
            offset = position.offset
            self._offer(connection, position.epoch, offset, [Message(offset, data)])

    def _offer(
        self, connection: Connection, epoch: str, first: int, run: Sequence[Message]
    ) -> None:
        received = self._owner.received(self.log, epoch, first, run)
        self._grown(self)
        if received is Received.GAP or received is Received.OTHER_EPOCH:
            self.catch_up(connection)

    def begin(self, connection: Connection, page: Page) -> None:
        """Take a page that was not asked for by this replica: a reader begins at its start.

        The window then has all messages from there on, once the rest is read. It is at the top if
        the messages of the reader are no longer held.
        """
        self.quiet = False
        self._note(page)
        before = page.top if page.after is None else page.after
        log = self.log
        if page.epoch != log.epoch and not self.empty:
            log = self.log = self._owner.moved(log, page.epoch, page.first, page.began)
        if self.empty or not log.first - 1 <= before <= log.top or page.epoch != log.epoch:
            log.reset(page.epoch, before + 1)
        self.empty, self._behind = False, False
        self._go_on(connection, page, more=page.after is not None and self._take_run(page))

    def resume(self, connection: Connection, page: Page) -> None:
        """Take the page after the window, on a new connection that was not asked before."""
        self._reading = connection
        self._behind = False
        self._take_page(connection, page)

    def _read(self, connection: Connection) -> None:
        """Ask for the messages after the window; the page is taken in order with the frames."""
        self._behind = False
        self._reading = connection
        place: Start = Position(self.log.epoch, self.log.top)
        call = self._scripts.follow(self.keys, Last(self.log.spec.size) if self.empty else place)

        def read(reply: Reply) -> None:
            self._take_page(connection, call.read(reply))

        asked = connection.send(Call(call.command, read, call.script))
        asked.add_done_callback(lambda reply: self._fail(connection, reply.exception()))

    def _fail(self, connection: Connection, error: BaseException | None) -> None:
        if not isinstance(error, Exception) or self._reading is not connection:
            return
        if isinstance(error, ReplyError) and error.code == "WRONGTYPE":
            self._end("failed")  # another program uses a key
        else:
            self._finish(error)

    def _take_page(self, connection: Connection, page: Page | Gone) -> None:
        if self._reading is not connection:
            return  # the connection has ended, or the log is followed no more
        self.quiet = False
        if isinstance(page, Gone):
            self._take_loss(connection)
            return
        if self._is_another(page):
            self._end("ended")
            return
        self._note(page)
        self._go_on(connection, page, more=self._take_run(page))

    def _is_another(self, page: Page) -> bool:
        """Return whether a page is of another channel of the same name."""
        if self.making is None:
            return self.strict and page.guard != self.log.spec.guard
        return self.making != page.making

    def _note(self, page: Page) -> None:
        self._aged, self.making, self._reopened = page.aged, page.making, False

    def _go_on(self, connection: Connection, page: Page, *, more: bool) -> None:
        if more or self._behind:
            self._read(connection)
        elif page.closed:
            self._end(page.closed, error=False)
        else:
            self._finish(None)

    def _take_loss(self, connection: Connection) -> None:
        """Open the channel again, once; Redis may be too full for the channel."""
        if not self._reopen(connection, self.log):
            self._end("ended")
        elif self._reopened:
            self._reopened = False
            self._finish(BrokerUnavailable(f"channel {self.log.name!r} cannot be opened again"))
        else:
            self._reopened = True
            self._read(connection)

    def _end(self, reason: str, *, error: bool = True) -> None:
        self.ended = reason
        self._finish(ChannelClosed(self.log.name, reason) if error else None)
        self._owner.ended(self.log, reason)

    def _take_run(self, page: Page) -> bool:
        """Add a page to the window; return whether the log has more messages."""
        if self.empty and page.after is not None:
            self.empty = False
            self.log.reset(page.epoch, page.after + 1)
        if page.epoch != self.log.epoch:
            self.log = self._owner.moved(self.log, page.epoch, page.first, page.began)
            return page.first <= page.top and self.log.epoch == page.epoch
        if page.after is None:
            self._owner.cut(self.log, page.first)
            return page.first <= page.top
        if page.after > self.log.top:  # a newest channel: older messages are worthless
            self._owner.cut(self.log, page.after + 1)
        if page.run:
            self._owner.received(self.log, page.epoch, page.after + 1, self._date(page))
            self._grown(self)
        return page.after + len(page.run) < page.top

    def _date(self, page: Page) -> Sequence[Message]:
        """Return the run of a page; messages with times get times of this worker's clock.

        Each message counts as younger than its true age, by the travel time of the page, and the
        message of a frame counts as new. So no window drops a message before Redis.
        """
        if not page.aged:
            return page.run
        now = self._owner.now()
        run = zip(page.run, page.ages, strict=True)
        return [Dated(one.offset, one.data, now - age) for one, age in run]

    def _finish(self, error: Exception | None) -> None:
        self._reading = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(error)


def _ignore(_: Replica) -> None:
    """Do nothing: all windows together have no bound."""


def read_frame(frame: bytes) -> tuple[str, int, list[bytes]]:
    """Read the epoch, the first offset and the rows of a frame of messages."""
    line = frame.index(b"\n")
    epoch, first, _ = frame[1:line].split(b" ", 2)
    rows: list[bytes] = []
    end = line + 1
    while end < len(frame):
        colon = frame.index(b":", end)
        begin = colon + 1
        end = begin + int(frame[end:colon])
        rows.append(frame[begin:end])
    return epoch.decode(), int(first), rows
