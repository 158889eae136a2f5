"""The channels that one of the workers that a `JoinedBroker` joins owns, or waits to own.

Owns which channels these are. Must not know how a frame gets to the worker, nor how a source is
read.
"""

from __future__ import annotations

from asgi_comet.brokers.logs import Log
from asgi_comet.testing.joined_claims import Joined
from asgi_comet.testing.joined_windows import JoinedWindows
from asgi_comet.testing.store import key_of

__all__ = ["JoinedBids"]


class JoinedBids:
    """The bids of one worker for channels, by the keys of their logs.

    Args:
        broker: The broker of the worker.
        windows: The windows of the worker.
    """

    def __init__(self, broker: Joined, windows: JoinedWindows) -> None:
        self._broker = broker
        self._store = broker.store
        self._windows = windows
        self._logs: dict[str, Log] = {}
        self._continuing: set[str] = set()  # whose sources go on where the last worker left off

    def add(self, log: Log, *, continues: bool) -> None:
        """Own a channel once no other worker does."""
        key = key_of(log)
        (self._continuing.add if continues else self._continuing.discard)(key)
        if log.spec.owner is not None:
            self._logs[key] = log
        self._store.bid(key, self._broker)

    def release(self, log: Log, *, clean: bool) -> None:
        """Let another worker own a channel."""
        key = key_of(log)
        self._logs.pop(key, None)
        if not clean and self._store.owner(key) is self._broker and key not in self._continuing:
            self._store.renew(key, tell=True)
        self._store.release(key, self._broker)

    def renew(self, log: Log) -> None:
        """Give a log another epoch."""
        key, host = key_of(log), self._broker.host
        self._store.renew(key, tell=True)
        if log.spec.owner is not None and self._windows.find(key) is None:
            history = self._store.read(key, host.now())
            self._logs[key] = host.moved(log, history.epoch, history.first, history.first - 1)

    def own(self, key: str) -> None:
        """Tell the worker that it owns a channel from now on."""
        log = self._windows.find(key)
        if log is not None:
            log = self._windows.check(log)
        log = log or self._logs.get(key)
        if log is not None:
            self._broker.host.owned(log, log.newest)

    def want(self, key: str, offset: int) -> None:
        """Tell the worker that a client asks for values of an own channel's source."""
        log = self._logs.get(key)
        if log is not None:
            self._broker.host.wanted(log, offset)

    def fail(self) -> None:
        """End the own channels whose sources end with this worker."""
        for key, log in self._logs.items():
            if log.spec.sourced and self._store.owner(key) is self._broker:
                self._store.end(key, "failed")
