"""The channels that a worker holds: their properties for the scripts, and their windows.

Owns the channel of each message, also when the window is replaced, and the opening of channels that
Redis has lost. Must not know the messages of windows, nor how connections are made.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakKeyDictionary, ref

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis import lua
from asgi_comet.brokers.redis.appends import Append, error_of
from asgi_comet.brokers.redis.calls import IMPORTED, Call, Item, Log, fresh
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.orphans import LOST, Orphans
from asgi_comet.brokers.redis.records import keys_of
from asgi_comet.brokers.redis.replies import Gone, Opened, Refused, Reply
from asgi_comet.brokers.redis.scripts import Scripts, load
from asgi_comet.brokers.redis.serving import Beginning, Serving
from asgi_comet.errors import (
    BrokerUnavailable,
    ChannelClosed,
    ChannelFull,
    CometError,
)
from asgi_comet.log_events import event

__all__ = ["TOPS", "Held", "Holding"]

_logger = logging.getLogger(__name__)

TOPS = 500  # logs in one question
LINGER = 60_000  # ms that the messages of an ended channel stay


class Held:
    """One channel.

    Attributes:
        log: The properties for the scripts.
        closed: The reason of the end, as far as this worker knows.
        error: Makes the error if the channel could not be opened: another each time, as the
            traceback of one that was raised refers to the windows.
        owner: The id of this worker, if this worker reads a source that was given at run time.
        fence: The fence of this worker, in the same case.
    """

    __slots__ = ("_windows", "closed", "error", "fence", "log", "owner")

    def __init__(self, log: Log) -> None:
        self.log: Log = log
        self.closed: str | None = None
        self.error: Callable[[], CometError] | None = None
        self.owner: str = ""
        self.fence: str = ""
        # Nearly always one: a WeakSet of it would be 800 bytes for each channel.
        self._windows: tuple[ref[Window], ...] = ()

    @property
    def windows(self) -> list[Window]:
        """The windows on it, one for each incarnation that is in use."""
        return [window for one in self._windows if (window := one()) is not None]

    def add(self, window: Window) -> None:
        """Add a window. Idempotent."""
        others = [one for one in self.windows if one is not window]
        self._windows = tuple(map(ref, (*others, window)))


class Holding:
    """The channels of one worker. `append` is thread-safe.

    Args:
        host: The worker, which is told when channels end.
        scripts: The scripts.
        serving: The connection.
        flusher: Stores messages.
        clock: The clock.

    Attributes:
        orphans: The channels whose client process Redis does not know yet.
    """

    def __init__(
        self, host: Host, scripts: Scripts, serving: Serving, flusher: Flusher, clock: Clock
    ) -> None:
        self.orphans: Orphans[Held] = Orphans(clock, self._opening)
        self._host = host
        self._scripts = scripts
        self._serving = serving
        self._flusher = flusher
        self._lock = threading.Lock()  # of all tables
        self._by_window: WeakKeyDictionary[Window, Held] = WeakKeyDictionary()
        self._by_name: dict[str, Held] = {}  # opened again if Redis has lost all data
        # Messages from before the channel, or its client process, was known.
        self._early: dict[Window, list[Append]] = {}

    def append(
        self, window: Window, item: Item, fence: str = "", *, patient: bool = False
    ) -> Append:
        """Queue a message; see `Flusher.append`.

        Raises:
            BrokerUnavailable: The queue is full.
            ChannelClosed: The channel has ended.
        """
        with self._lock:
            held = self._by_window.get(window)
            if held is not None and held.closed is not None:
                raise error_of(held.log, Refused(held.closed)) from held.error and held.error()
            if held is not None and held not in self.orphans:
                return self._flusher.append(held.log, item, fence, patient=patient)
            keys = keys_of(self._scripts.keys, window)
            log = Log(keys, "", "", 1, 1) if held is None else held.log  # until `learn`
            append = self._flusher.make(log, item, fence, patient=patient)
            self._early.setdefault(window, []).append(append)
            return append

    def find(self, window: Window) -> Held | None:
        """Return the channel of a window."""
        return self._by_window.get(window)

    def opening(self, name: str) -> Window | None:
        """Return the window of a channel that this worker opens as the only possible owner."""
        held = self._by_name.get(name)
        return held.windows[-1] if held is not None and held.fence and held.windows else None

    def learn(self, window: Window, log: Log) -> Held:
        """Record the properties of a window's channel, and queue the messages from before."""
        held = self._by_window.get(window)
        if held is None or held.log is not log:
            held = Held(log)
        with self._lock:
            self._by_name[log.keys.name] = held
            self._attach(window, held)
        return held

    def move(self, old: Window, new: Window) -> None:
        """Record a new window of a channel; publishing on both windows is the same."""
        held = self._by_window.get(old)
        if held is not None:
            with self._lock:
                self._attach(new, held)

    def _attach(self, window: Window, held: Held) -> None:
        self._by_window[window] = held
        held.add(window)
        self._flusher.add(self._early.pop(window, []), held.log)

    def leave(self, window: Window) -> None:
        """Stop holding a channel; publishing on the windows is still possible."""
        held = self._by_window.get(window)
        if held is not None and self._by_name.get(held.log.keys.name) is held:
            del self._by_name[held.log.keys.name]

    def rejoin(self, window: Window) -> bool:
        """Hold the channel of a window again that `leave` has left; return whether it had."""
        held = self._by_window.get(window)
        if held is None or held.closed is not None or held.log.keys.name in self._by_name:
            return False
        with self._lock:
            self._by_name[held.log.keys.name] = held
        return True

    def close(self, window: Window, reason: str) -> None:
        """Refuse messages from now on: the channel has ended."""
        self.leave(window)
        held = self._by_window.get(window)
        if held is not None and held.closed is None:
            held.closed = reason

    def give_up(self, before: float) -> list[Append]:
        """Remove and return messages from before a time on channels that were never opened."""
        with self._lock:
            found = [a for waiting in self._early.values() for a in waiting if a.since < before]
            late = set(map(id, found))
            for window, waiting in list(self._early.items()):
                waiting[:] = [append for append in waiting if id(append) not in late]
                if not waiting:
                    del self._early[window]
        return found

    # Ends

    async def end(self, window: Window, reason: str) -> None:
        """End a channel, after all published messages."""
        held = self._by_window.get(window)
        if held is None:
            return
        self._by_name.setdefault(held.log.keys.name, held)  # opened again before the end
        held.closed = held.closed or reason
        owner, fence = held.owner, held.fence
        call = self._scripts.end(held.log, reason, LINGER, owner=owner, fence=fence)
        try:
            ended = await self._flusher.call(call, again=True)
            if isinstance(ended, Gone) and self._serving.reopens:
                self._flusher.call(self._opening(held))
                await self._flusher.call(call, again=True)
        finally:
            self.leave(window)

    def refuse(self, appends: Sequence[Append], refused: Refused) -> None:
        """Put messages back that Redis refused, or tell the publishers."""
        held = self._find_log(appends[0].log)
        if held is not None and self._may_reopen(held, refused):
            self._flusher.put_back(appends, self._opening(held))
            return
        if held is not None and held in self.orphans and held.windows and refused.why == "gone":
            self._put_aside(held, appends)
            return
        known = held and held.error
        error = known() if known else error_of(appends[0].log, refused)
        reason = _reason_of(error)
        if reason is not None and held is not None:
            self._end_here(held, reason)
        elif refused.why == "wrong" and held is not None:
            self._fail(held, error)
        for append in appends:
            append.settle(error)

    def _put_aside(self, held: Held, appends: Sequence[Append]) -> None:
        """Keep refused messages, before all later ones, until the channel is open again."""
        with self._lock:
            early = self._early.setdefault(held.windows[0], [])
            early[:0] = self._flusher.take_back(appends)

    def _fail(self, held: Held, error: CometError) -> None:
        """End a channel as failed: messages were lost, and its readers must learn so."""
        _logger.error(
            "channel %.200r fails: %s",
            held.log.keys.shown,
            error,
            extra=event("key.foreign", channel=held.log.keys.shown, reason=str(error)),
        )
        call = self._scripts.end(held.log, "failed", LINGER, owner=held.owner, fence=held.fence)
        self._flusher.call(call, again=True)
        self._end_here(held, "failed")

    def _end_here(self, held: Held, reason: str) -> None:
        if self._by_name.get(held.log.keys.name) is held:
            del self._by_name[held.log.keys.name]
        for window in held.windows:
            self.close(window, reason)
            self._host.ended(window, reason)

    def _may_reopen(self, held: Held, refused: Refused) -> bool:
        """Return whether a refused message opens the channel again."""
        if held.error is not None or held in self.orphans:
            return False
        if refused.why == "unused":
            return held.log.making == IMPORTED  # every worker makes the channel when needed
        return refused.why == "gone" and self._serving.reopens

    def _find_log(self, log: Log) -> Held | None:
        held = self._by_name.get(log.keys.name)
        if held is None or held.log is not log:
            held = next((one for one in list(self._by_window.values()) if one.log is log), None)
        return held

    # Opening again

    def reopen(self, connection: Connection, window: Window) -> bool:
        """Open a channel again that Redis has lost.

        The channel is open when Redis answers the next call on the connection. Return false if the
        channel may instead have ended without this worker's knowledge.
        """
        held = self._by_window.get(window)
        if held is None or not self.lasts(window):
            return False
        connection.send(self._opening(held))
        return True

    def lasts(self, window: Window) -> bool:
        """Return whether a channel that is missing in Redis has not ended, as far as is known."""
        held = self._by_window.get(window)
        ended = held is None or held.closed is not None or held.error is not None
        return not ended and self._serving.reopens

    async def announce(self, beginning: Beginning) -> None:
        """Open all missing channels again, if Redis may have lost data.

        Channels that have ended meanwhile stay ended.
        """
        # For `reopen`: a call for which a script must be loaded first runs after later calls.
        beginning.connection.send(load(lua.OPEN))
        if not beginning.renewed:
            return
        held = list(self._by_name.values())
        for begin in range(0, len(held), TOPS):
            await self._announce(beginning.connection, held[begin : begin + TOPS])

    async def _announce(self, connection: Connection, part: Sequence[Held]) -> None:
        tops = await connection.send(self._scripts.tops([held.log.keys for held in part]))
        missing = [held for held, log in zip(part, tops.logs, strict=True) if log is None]
        asked = [connection.send(self._opening(held)) for held in missing]
        await asyncio.gather(*asked, return_exceptions=True)
        if connection.closed is not None:
            raise BrokerUnavailable(connection.closed)

    def _opening(self, held: Held) -> Call[Opened | Gone | Refused]:
        """Return the call that opens a channel again; an own channel may have ended meanwhile."""
        call = self._scripts.open(held.log, fresh(), owner=held.owner, fence=held.fence, again=True)

        def read(reply: Reply) -> Opened | Gone | Refused:
            opened = call.read(reply)
            if opened == LOST and held.closed is None and self.orphans.add(held):
                return opened
            if opened in (LOST, Refused("closed")) or isinstance(opened, Gone):
                held.error = held.error or partial(ChannelClosed, held.log.keys.shown, "ended")
                self._end_here(held, held.closed or "ended")
            if held in self.orphans:
                self._go_on(held)
            return opened

        return call._replace(read=read)

    def _go_on(self, held: Held) -> None:
        """Queue the messages that have waited for the client process of a channel."""
        with self._lock:
            self.orphans.discard(held)
            for window in held.windows:
                self._flusher.add(self._early.pop(window, []), held.log)


def _reason_of(error: CometError) -> str | None:
    match error:
        case ChannelClosed():
            return error.reason
        case ChannelFull():
            return "full"
        case _:
            return None
