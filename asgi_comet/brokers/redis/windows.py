"""The windows on own channels in this worker, filled by pages that a claim has read.

Owns which window a page belongs to: another channel of the same name has another window. Must not
know which connections read.
"""

from __future__ import annotations

from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import ChannelSpec, Closed, Full, Placed
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.people import Found
from asgi_comet.brokers.redis.calls import Item, Log
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.holding import Holding
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.marks import Marks
from asgi_comet.brokers.redis.naming import Naming
from asgi_comet.brokers.redis.ownership import Ownership
from asgi_comet.brokers.redis.pages import Page
from asgi_comet.brokers.redis.people_replies import OwnPage
from asgi_comet.brokers.redis.records import reason_of, spec_of
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.replies import Record
from asgi_comet.position import Position

__all__ = ["OwnWindows"]


class OwnWindows:
    """The windows on own channels. Call in the loop's thread.

    Args:
        host: The worker.
        following: Fills windows.
        holding: The channels of this worker.
        naming: The names of channels.
        marks: What readers were sent, and have.
        ownership: The channels whose sources this worker reads.
    """

    def __init__(
        self,
        host: Host,
        following: Following,
        holding: Holding,
        naming: Naming,
        marks: Marks,
        ownership: Ownership,
    ) -> None:
        self._host = host
        self._following = following
        self._holding = holding
        self._naming = naming
        self._marks = marks
        self._ownership = ownership

    def begin(
        self, connection: Connection, keys: ChannelKeys, found: OwnPage, *, got: int
    ) -> tuple[Replica | None, Found]:
        """Fill a window for a reader.

        Args:
            connection: The connection.
            keys: The channel.
            found: The next messages of the reader.
            got: The offset that the reader has acknowledged by its start; 0 for none.
        """
        page = found.page
        replica = self._prepare(keys, found.record)
        if replica is None:
            return None, Found(None, Closed("ended"))
        replica.begin(connection, page)
        window = replica.log
        if not page.owner:
            self._ownership.try_again(keys.name)
        self._marks.begin(window, sent=page.first - 1, got=got)
        return replica, Found(window, _start_of(page), found.progress)

    def join(self, connection: Connection, keys: ChannelKeys, record: Record) -> Replica | None:
        """Fill a window from its first message on, for a reader that has waited for the channel."""
        replica = self._prepare(keys, record)
        if replica is not None:
            replica.catch_up(connection)
        return replica

    def resume(self, connection: Connection, replica: Replica, page: Page) -> None:
        """Go on with a window on a new connection."""
        if replica.making not in (None, page.making):
            self._following.ended(replica.log, "ended")
        else:
            replica.resume(connection, page)

    def acknowledge(self, window: Window, offset: int) -> None:
        """Record that a reader has the messages up to an offset."""
        self._marks.acknowledge(window, offset)

    def drop(self, replica: Replica) -> None:
        """Stop filling a window, unless this worker needs the window for the channel's source."""
        if not self._needs(replica):
            self._following.drop_own(replica)
            if replica.adopted:
                self._holding.leave(replica.log)

    def _needs(self, replica: Replica) -> bool:
        return replica.pinned and self._ownership.owns(replica.keys.name)

    def _prepare(self, keys: ChannelKeys, record: Record) -> Replica | None:
        """Return the replica of a channel, made if there is none."""
        replica = self._following.find(keys.name)
        if replica is not None and replica.making not in (None, record.making):
            self._following.ended(replica.log, "ended")
            replica = None
        window = self._find_window(keys, record)
        if window is None or (replica is not None and replica.log is window):
            return None if window is None else replica
        replica = self._following.add_own(window, keys)
        if self._holding.find(window) is None:
            self._naming.learn(window, keys, record.making)
            replica.adopted = True
        else:  # the channel is this worker's own, or was left with the last reader here
            replica.adopted = self._holding.rejoin(window)
        return replica

    def _find_window(self, keys: ChannelKeys, record: Record) -> Window | None:
        spec = _spec_of(keys, record)
        window = self._host.people.window(spec)
        held = None if window is None else self._holding.find(window)
        if window is None or held is None or held.log.making == record.making:
            return window
        self._following.ended(window, "ended")  # another channel of that name
        return self._host.people.window(spec)

    # Sources that are read on demand

    def offer(self, window: Window, log: Log, item: Item, position: Position) -> None:
        """Add a value of a source that this worker has stored.

        The source is read only as far as the window has room, so the window has all messages that
        the reader has not acknowledged, also if the reader is in another worker.
        """
        replica = self._following.find(log.keys.name)
        if replica is None:
            replica = self._following.add_own(window, log.keys)
            replica.making = log.making
            before = Position(window.epoch, window.top + 1)
            replica.empty = before != position
        replica.pinned = True
        self._following.offer(replica, position, item.data)


def _spec_of(keys: ChannelKeys, record: Record) -> ChannelSpec:
    return spec_of(keys.shown, record, keys.owner)


def _start_of(page: Page) -> Placed | Full | Closed:
    if page.after is None or page.closed == "full":
        return Full()
    if page.closed and page.after == page.top:
        return Closed(reason_of(page.closed))
    return Placed(page.after, page.epoch)
