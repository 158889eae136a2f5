"""The broker of one worker: its windows are the logs, so it carries nothing."""

from __future__ import annotations

import secrets
import threading
from weakref import WeakKeyDictionary

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.ids import Ids
from asgi_comet.brokers.logs import ChannelSpec, Full, Log, Opened, Placed, State, Stored
from asgi_comet.core.messages import Message, Start

__all__ = ["MemoryBroker"]


class MemoryBroker(Broker):
    """Keeps everything in the memory of one worker. No operation waits."""

    shared = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: WeakKeyDictionary[Log, Ids] = WeakKeyDictionary()

    def append(
        self,
        log: Log,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
        state: State | None = None,
        sourced: bool = False,
    ) -> Stored:
        """Append to the window, which is the log."""
        del state, sourced  # a keyed channel keeps its own state; there is no other owner
        if id is not None:
            return self._append_once(log, data, id)
        offset = log.append(data)
        self.host.appended(log)
        return offset

    def _append_once(self, log: Log, data: bytes, id_: str) -> int:
        now = self.host.now()
        with self._lock:
            ids = self._ids.setdefault(log, Ids())
            known = ids.find(id_, now)
            if known is not None:
                return known
            offset = log.append(data)
            ids.note(id_, offset, now)
        self.host.appended(log)
        return offset

    async def open(self, log: Log, *, make: bool = True) -> Opened:
        """Return the state of the window; the directory has checked the name already."""
        return Opened(log.epoch, log.first, log.top)

    async def find(self, name: str) -> ChannelSpec | None:
        """Return `None`: there is no other worker."""
        return None

    async def follow(self, log: Log) -> None:
        """Return at once: the window is the log."""

    async def place(self, log: Log, start: Start) -> Placed | Full:
        """Locate the position in the window."""
        offset = log.locate(start)
        return Full() if offset is None else Placed(offset, log.epoch)

    async def recover(self, log: Log, after: int, max_bytes: int) -> list[Message] | None:
        """Return `None`: all stored messages are in the window."""
        return None

    async def end(self, log: Log, reason: str) -> None:
        """Return at once: the feed has ended."""

    async def run(self) -> None:
        """Return at once: there is nothing to carry."""

    async def hand_over(self) -> None:
        """Return at once: no worker takes over."""

    def unfollow(self, log: Log) -> None:
        """Do nothing: the window is the log."""

    def acknowledge(self, log: Log, offset: int) -> None:
        """Do nothing: the feed has recorded it."""

    def mark_sent(self, log: Log, offset: int) -> None:
        """Do nothing: the feed has recorded it."""

    def want(self, log: Log, offset: int) -> None:
        """Ask the source, which this worker reads."""
        self.host.wanted(log, offset)

    def bid(self, log: Log, *, continues: bool = False) -> None:
        """Own the channel at once: there is no other worker."""
        del continues
        self.host.owned(log, log.newest)

    def release(self, log: Log, *, clean: bool) -> None:
        """Do nothing: there is no other worker."""

    def renew(self, log: Log) -> None:
        """Give the window another epoch."""
        self.host.moved(log, secrets.token_urlsafe(6), 1, 0)

    def retire(self, log: Log, linger: float) -> bool:
        """Return `False`: the worker ends the channel by itself."""
        return False
