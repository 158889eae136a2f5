"""The windows of one of the workers that a `JoinedBroker` joins.

Owns which logs have a window, and how a window is brought up to date. Must not know how a frame
gets to the worker.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Log
from asgi_comet.core.history import History, Received
from asgi_comet.testing.joined_frames import Frame
from asgi_comet.testing.joined_outbox import Outbox
from asgi_comet.testing.store import Record, Store, key_of

__all__ = ["JoinedWindows"]


class JoinedWindows:
    """The windows that frames to one worker fill, by the keys of their logs.

    Args:
        store: The store.
        host: Returns the worker.
        outbox: Knows the log of each window.
    """

    def __init__(self, store: Store, host: Callable[[], Host], outbox: Outbox) -> None:
        self._store = store
        self._host = host
        self._outbox = outbox
        self._windows: dict[str, Log] = {}

    def find(self, key: str) -> Log | None:
        """Return the window on a log."""
        return self._windows.get(key)

    def add(self, log: Log, record: Record) -> Log:
        """Bring a window up to date, and fill it from now on."""
        self._outbox.records[log] = record
        self._windows[key_of(log)] = log
        return self.check(log)

    def drop(self, key: str) -> None:
        """Fill a window no more."""
        self._windows.pop(key, None)

    def take(self, frame: Frame) -> None:
        """Take the messages of a log, or its end."""
        log = self._windows.get(frame.name)
        if log is None:
            return
        if not frame.run:
            self.check(log)
            return
        received = self._host().received(log, frame.epoch, frame.run[0].offset, frame.run)
        if received in (Received.GAP, Received.OTHER_EPOCH):
            self.check(log)

    def check_all(self) -> None:
        """Bring all windows up to date."""
        for log in list(self._windows.values()):
            self.check(log)

    def check(self, log: Log, record: Record | None = None) -> Log:
        """Bring a window up to date with the store; return the window to follow from now on."""
        record = record or self._outbox.records[log]
        with self._store.lock:
            history = record.read(self._host().now())
            if history.epoch != log.epoch:
                log = self._host().moved(log, history.epoch, history.first, history.first - 1)
                self._windows[key_of(log)] = log
                self._outbox.records[log] = record
            self._catch_up(log, history)
            if record.closed is not None:
                self._host().ended(log, record.closed)
            return log

    def _catch_up(self, log: Log, history: History) -> None:
        host, run = self._host(), history.after(log.top)
        if run is None:
            host.cut(log, history.first)
            run = history.after(history.first - 1)
        if run:
            host.received(log, history.epoch, run[0].offset, run)
