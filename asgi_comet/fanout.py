"""From a published message to the connections that listen: feeds, listeners, and one flush.

Owns who listens to what, and how they are woken: a publish marks its feed, one task wakes the
listeners of all marked feeds, in batches, and never builds a task, timer or queue item per channel
or per delivery. Must not know names, sources, identities, or what bytes a transport sends.

Divergences from `Ocsigen_comet`:

1. A feed keeps a positioned history; a listener is a cursor into it, not a waiter on a value.
2. A listener that woke reads all its channels, so messages written in the same instant go out
   in one answer whatever their number.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum

import anyio
from anyio.lowlevel import checkpoint

from .errors import ChannelClosed
from .history import History
from .messages import Message
from .outcomes import Outcomes
from .threads import LoopThread
from .timers import BATCH, Timer

__all__ = ["Encoder", "Fanout", "Feed", "Listener", "Wake"]

Encoder = Callable[[str, list[Message]], bytes]


class Wake(Enum):
    """Why a listener woke."""

    MESSAGE = "message"
    TIMEOUT = "timeout"
    DEACTIVATED = "deactivated"
    GONE = "gone"


class Feed:
    """What all listeners of one channel share.

    Args:
        name: The channel's name.
        history: Its messages. Read and written under `lock`, for publishers live in any thread.
    """

    __slots__ = (
        "_rendered",
        "_rendered_bytes",
        "closed",
        "history",
        "listeners",
        "lock",
        "marked",
        "name",
        "observers",
        "outcomes",
        "visits",
    )

    def __init__(self, name: str, history: History) -> None:
        self.name: str = name
        self.history: History = history
        self.lock: threading.Lock = threading.Lock()
        self.listeners: set[Listener] = set()
        self.outcomes: Outcomes = Outcomes()
        self.closed: str | None = None  # why it ended: `ended` or `failed`
        self.marked: bool = False  # whether it waits for the flush
        self.visits: int = 0  # how many listeners ever came
        self.observers: list[Callable[[int], None]] = []  # told the count when listeners come or go
        # Encoded runs by transport and cursor, shared by all who stand there; forgotten on publish.
        self._rendered: dict[tuple[Encoder, int], bytes] = {}
        self._rendered_bytes = 0

    def append(self, data: bytes) -> int:
        """Add a message; thread-safe.

        Args:
            data: The value as JSON.

        Returns:
            Its offset.

        Raises:
            ChannelClosed: The feed has ended.
        """
        with self.lock:
            if self.closed is not None:
                raise ChannelClosed(self.name, self.closed)
            self._forget_rendered()
            return self.history.append(data)

    def render(self, encode: Encoder, after: int) -> tuple[bytes, int] | None:
        """Encode all that is held after an offset, once for all listeners at that offset.

        Args:
            encode: How the transport writes messages of a channel.
            after: The last offset the listener has.

        Returns:
            The bytes and the offset they reach to; `None` is a gap.
        """
        with self.lock:
            top = self.history.top
            found = self._rendered.get((encode, after))
            if found is not None:
                return found, top
            run = self.history.after(after)
            if run is None:
                return None
            encoded = encode(self.name, run)
            self._keep_rendered(encode, after, encoded)
            return encoded, top

    def add(self, listener: Listener) -> None:
        """Count a listener in."""
        self.listeners.add(listener)
        self.visits += 1
        for observe in self.observers:
            observe(len(self.listeners))

    def remove(self, listener: Listener) -> None:
        """Count a listener out."""
        self.listeners.discard(listener)
        for observe in self.observers:
            observe(len(self.listeners))

    def _keep_rendered(self, encode: Encoder, after: int, encoded: bytes) -> None:
        # At most one run, or as many bytes as the history itself may hold.
        if self._rendered_bytes + len(encoded) > self.history.max_bytes:
            self._forget_rendered()
        self._rendered[encode, after] = encoded
        self._rendered_bytes += len(encoded)

    def _forget_rendered(self) -> None:
        self._rendered.clear()
        self._rendered_bytes = 0


class Listener(Timer):
    """One connection that is open on channels: a cursor for each, and a way to be woken.

    Attributes:
        cursors: For each feed the last offset that the client has.
        woken: Why it woke; `None` while it waits.
    """

    __slots__ = ("cursors", "woken")

    def __init__(self) -> None:
        super().__init__()
        self.cursors: dict[Feed, int] = {}
        self.woken: Wake | None = None

    def wake(self, why: Wake) -> None:
        """Wake the connection, once; what comes later it will see when it looks."""
        if self.woken is None:
            self.woken = why
            self.rouse()

    def gone(self) -> None:
        """Take note that the client has left. A wake in the same moment has nobody to answer."""
        self.woken = Wake.GONE

    def expire(self) -> None:
        """The hold has lasted long enough."""
        self.wake(Wake.TIMEOUT)

    @abstractmethod
    def rouse(self) -> None:
        """Make the waiting connection go on. Must not block or raise."""


class Fanout:
    """All listeners, and the flush that wakes them.

    Args:
        loop: The thread that listeners live in.
    """

    def __init__(self, loop: LoopThread) -> None:
        self._loop = loop
        self._marked: deque[Feed] = deque()
        self._ending: deque[tuple[list[Listener], Wake]] = deque()
        self._work = anyio.Event()
        self.listeners: set[Listener] = set()
        self.draining: bool = False  # the server stops: nobody is held any more

    def publish(self, feed: Feed, data: bytes) -> int:
        """Append a message and have its listeners woken. Thread-safe; never waits.

        Args:
            feed: The channel's feed.
            data: The value as JSON.

        Returns:
            Its offset.

        Raises:
            ChannelClosed: The feed has ended.
        """
        offset = feed.append(data)
        # A listener adds itself before it reads the history, so whoever is missing here sees
        # the message when it reads.
        if feed.listeners:
            self.mark(feed)
        return offset

    def close(self, feed: Feed, reason: str) -> None:
        """End a feed: its listeners read what remains and are told. Thread-safe; idempotent."""
        with feed.lock:
            if feed.closed is not None:
                return
            feed.closed = reason
        self.mark(feed)

    def mark(self, feed: Feed) -> None:
        """Have the listeners of a feed woken by the next flush. Thread-safe."""
        if not feed.marked:
            feed.marked = True
            self._marked.append(feed)
            self._loop.run(self._nudge)

    def attach(self, listener: Listener, feeds: Iterable[Feed]) -> None:
        """Count a listener in on feeds, from what they hold now on."""
        self.listeners.add(listener)
        for feed in feeds:
            feed.add(listener)
            listener.cursors[feed] = feed.history.top

    def detach(self, listener: Listener) -> None:
        """Count a listener out everywhere. Idempotent."""
        self.listeners.discard(listener)
        for feed in listener.cursors:
            feed.remove(listener)

    def end(self, why: Wake) -> None:
        """Have every listener that is attached now woken, in batches. Idempotent."""
        self._ending.append((list(self.listeners), why))
        self._nudge()

    def drain(self) -> None:
        """Have every held request answered as at its timeout, and hold none any more."""
        self.draining = True
        self.end(Wake.TIMEOUT)

    async def run(self) -> None:
        """Flush until cancelled: the one task that wakes listeners."""
        while True:
            self._work = anyio.Event()
            await self.flush()
            await self._work.wait()

    async def flush(self) -> None:
        """Wake all listeners of marked feeds, and those to be ended, a batch per turn."""
        done = 0
        while self._ending or self._marked:
            if self._ending:
                listeners, why = self._ending.popleft()
            else:
                feed = self._marked.popleft()
                feed.marked = False  # before reading: a publish from now on marks it again
                listeners, why = list(feed.listeners), Wake.MESSAGE
            for listener in listeners:
                listener.wake(why)
                done += 1
                if done % BATCH == 0:
                    await checkpoint()

    def _nudge(self) -> None:
        self._work.set()
