"""The progress of the readers of own channels as the store knows it: sent, acknowledged, skipped.

Owns how far the record of a channel may be behind: an acknowledgement is reported at once, with all
others of the same turn of the loop; the offset sent is reported once the unsent part, as the record
knows it, is a quarter of what the channel holds, for a publisher may then find the channel full.
Must not know connections of clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from weakref import WeakKeyDictionary

from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.keys import ChannelKeys, ProcessKeys
from asgi_comet.brokers.redis.people_calls import Mark
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.records import keys_of
from asgi_comet.brokers.redis.serving import Beginning
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.position import Position

__all__ = ["Marks"]

SHARE = 4  # the unsent part of a channel, as the record knows it, is at most one of so many parts
MOST = 500  # channels in one call

_Reply = tuple[bool | str, ...]


class _Progress:
    """The reader of one own channel.

    Attributes:
        keys: The keys of the channel.
        size: How many messages the channel holds.
        max_bytes: How many bytes the channel holds.
        epoch: The epoch of the offsets.
        sent: The highest offset sent.
        got: The highest offset acknowledged.
        told_sent: The highest offset that the record has as sent.
        told_got: The highest offset that the record has as acknowledged.
        skipped: The offset before all messages that the reader lacks, and that of the last one.
        told_skipped: The highest offset that the record has as skipped.
    """

    __slots__ = (
        *("epoch", "got", "keys", "max_bytes", "sent", "size"),
        *("skipped", "told_got", "told_sent", "told_skipped"),
    )

    def __init__(self, keys: ChannelKeys, window: Window) -> None:
        spec = window.spec
        self.keys: ChannelKeys = keys
        self.size: int = spec.size
        self.max_bytes: int = spec.max_bytes
        self.epoch: str = window.epoch
        self.sent = self.got = self.told_sent = self.told_got = self.told_skipped = 0
        self.skipped: tuple[int, int] = (0, 0)

    def is_due(self, window: Window) -> bool:
        """Return whether the record must learn what was sent."""
        unsent = window.top - self.told_sent
        return self.sent > self.told_sent and (
            unsent * SHARE >= self.size or window.held_bytes * SHARE >= self.max_bytes
        )

    def forget(self) -> None:
        """Report everything again with the next report."""
        self.told_sent = self.told_got = self.told_skipped = 0


_Part = Sequence[tuple[Window, _Progress]]


class Marks:
    """The progress of the readers in this worker. Call in the loop's thread.

    Args:
        scripts: The scripts.
        run_soon: Runs a function in the loop's next turn.
    """

    def __init__(
        self,
        scripts: PeopleScripts,
        run_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._scripts = scripts
        self._connection: Connection | None = None  # the newest one
        self._run_soon = run_soon
        self._progress: WeakKeyDictionary[Window, _Progress] = WeakKeyDictionary()
        self._due: dict[Window, _Progress] = {}  # to report
        self._failed: dict[Window, _Progress] = {}  # to report once Redis takes a report
        self._reports: dict[asyncio.Future[_Reply], Sequence[Mark]] = {}  # under way

    def __len__(self) -> int:
        return len(self._due) + len(self._failed)

    def begin(self, window: Window, *, sent: int, got: int) -> None:
        """Record what the store knows of the reader of a channel at least."""
        progress = self._find(window)
        progress.told_sent = max(progress.told_sent, sent, got)
        progress.told_got = max(progress.told_got, got)
        self.look(window)

    def mark_sent(self, window: Window, offset: int) -> None:
        """Record that a reader was sent the messages up to an offset."""
        progress = self._find(window)
        progress.sent = max(progress.sent, offset)
        self.look(window)

    def acknowledge(self, window: Window, offset: int) -> None:
        """Record that a reader has the messages up to an offset."""
        progress = self._find(window)
        if offset > progress.told_got:
            progress.got = max(progress.got, offset)
            self._report(window, progress)

    def tell(self, process: ProcessKeys, positions: Mapping[str, Position]) -> None:
        """Report what a client has of channels on which this worker has no window."""
        connection = self._connection
        if connection is None or connection.closed is not None:
            return  # the client acknowledges by its next request
        marks = [
            Mark(process.channel(name[1:]), at.epoch, acknowledged=at.offset)
            for name, at in positions.items()
        ]
        self._send(connection, marks, ())

    async def settle(self, process: ProcessKeys) -> None:
        """Return once the store has what was reported so far of the channels of a client process.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses the report.
        """
        self._flush()
        if self._connection is None or self._connection.closed is not None:
            raise BrokerUnavailable("what readers have is told later")
        reports = [one for one in self._reports.items() if _is_about(process, one[1])]
        if reports:
            await asyncio.wait([reply for reply, _ in reports])
        for reply, marks in reports:
            for mark, known in zip(marks, reply.result(), strict=True):
                if isinstance(known, str) and mark.keys.process == process.process:
                    raise ReplyError(known)

    def skip(self, window: Window, after: int, upto: int) -> None:
        """Record that a reader lacks messages, see `Broker.skip`."""
        progress = self._find(window)
        before, last = progress.skipped
        progress.skipped = (min(before, after) if last else after), upto
        self._report(window, progress)

    def look(self, window: Window) -> None:
        """Report what was sent, if the window has got so many messages since the last report."""
        progress = self._progress.get(window)
        if progress is not None and progress.epoch == window.epoch and progress.is_due(window):
            self._report(window, progress)

    def report(self, window: Window) -> None:
        """Report what was sent, because another worker asks."""
        progress = self._progress.get(window)
        if progress is not None and progress.epoch == window.epoch:
            self._report(window, progress)

    def _find(self, window: Window) -> _Progress:
        progress = self._progress.get(window)
        if progress is None or progress.epoch != window.epoch:
            progress = _Progress(keys_of(self._scripts.keys, window), window)
            self._progress[window] = progress
        return progress

    def _report(self, window: Window, progress: _Progress) -> None:
        if not self._due:
            self._run_soon(self._flush)
        self._due[window] = progress

    async def resume(self, beginning: Beginning) -> None:
        """Report on a new connection what the last one may have lost."""
        self._connection = beginning.connection
        self._repeat()
        self._flush()

    def _flush(self) -> None:
        connection = self._connection
        if connection is None or connection.closed is not None:
            return  # see `resume`
        due, self._due = list(self._due.items()), {}
        for begin in range(0, len(due), MOST):
            part = due[begin : begin + MOST]
            self._send(connection, [_mark(progress) for _, progress in part], part)

    def _send(self, connection: Connection, marks: Sequence[Mark], part: _Part) -> None:
        sent = connection.send(self._scripts.mark(marks))
        self._reports[sent] = marks
        sent.add_done_callback(partial(self._reported, part))

    def _reported(self, part: _Part, reply: asyncio.Future[_Reply]) -> None:
        del self._reports[reply]
        if reply.exception() is not None:  # the store may lack all of this
            for window, progress in part:
                progress.forget()
                self._failed[window] = progress
            return
        # `tell` has no windows.
        for (_, progress), known in zip(part, reply.result(), strict=False):
            if isinstance(known, str):  # a key is not ours: not repeated before the next report
                progress.forget()
        self._repeat()

    def _repeat(self) -> None:
        """Report again what Redis has refused, or a connection has lost."""
        failed, self._failed = self._failed, {}
        for window, progress in failed.items():
            if window not in self._due:
                self._report(window, progress)


def _mark(progress: _Progress) -> Mark:
    """Return what the record does not know, which it knows from now on."""
    sent = progress.sent if progress.sent > progress.told_sent else None
    got = progress.got if progress.got > progress.told_got else None
    skipped = progress.skipped if progress.skipped[1] > progress.told_skipped else None
    progress.told_sent = max(progress.told_sent, progress.sent, progress.got)
    progress.told_got = max(progress.told_got, progress.got)
    progress.told_skipped = progress.skipped[1]
    return Mark(progress.keys, progress.epoch, sent, got, skipped)


def _is_about(process: ProcessKeys, marks: Sequence[Mark]) -> bool:
    return any(one.keys.process == process.process for one in marks)
