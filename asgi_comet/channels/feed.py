"""Feeds and listeners: what all who listen to one channel share, and what one of them is.

Owns how a channel of each kind is read: where a start position leads, what is a gap, what is full.
Must not know names, sources, identities, or what bytes a transport sends.

Divergences from `Ocsigen_comet` and `eliom_comet`:

1. A feed keeps a positioned history with an epoch; a listener is a cursor into it.
2. What was sent stays until the client's next position acknowledges it.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any, ClassVar

from asgi_comet._runtime.timers import Timer
from asgi_comet.brokers.base import ChannelSpec
from asgi_comet.channels.chunks import Chunks
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.outcomes import Outcomes
from asgi_comet.core.history import History, Received
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Message, Now, Position, Start
from asgi_comet.core.runs import Encoder, Rendered
from asgi_comet.errors import ChannelClosed, ChannelFull
from asgi_comet.protocol.sse import Html

__all__ = ["Authorize", "Encoder", "Feed", "Listener", "Rendered", "Wake"]

Authorize = Callable[..., Awaitable[bool] | bool]
"""Tells whether somebody may read a channel, given the connection, an `HTTPConnection`, and the
words of the channel's name."""


class Wake(Enum):
    """Why a listener woke."""

    MESSAGE = "message"
    TIMEOUT = "timeout"
    DEACTIVATED = "deactivated"
    REPLACED = "replaced"
    CLOSED = "closed"  # its client process
    MOVED = "moved"  # its session has another id: it resumes with the new cookie
    GONE = "gone"


class Lineage:
    """The incarnations of one channel, of which none holds another but the newest.

    Attributes:
        newest: The last of them.
    """

    __slots__ = ("newest",)

    def __init__(self, newest: Feed) -> None:
        self.newest: Feed = newest


class Names(ABC):
    """The names of one scope, and the feeds that have them."""

    @abstractmethod
    def replace(self, feed: Feed, successor: Feed) -> bool:
        """Let a live feed be followed by its next incarnation.

        Returns:
            Whether it was live: otherwise it has ended in this very moment, and stays so.
        """

    @abstractmethod
    def end(self, feed: Feed, *, keep: bool) -> bool:
        """Free the name of a feed that ended.

        Args:
            feed: The feed.
            keep: Whether what it holds can still be read.

        Returns:
            Whether it was live.
        """

    @abstractmethod
    def forget(self, feed: Feed) -> None:
        """Forget a feed that ended, but not that there was one of its name."""

    @abstractmethod
    def unexpect(self, name: str, listener: Listener) -> None:
        """Let a listener wait no more for a channel of that name."""


class Feed:
    """What all listeners of one channel share.

    Args:
        name: The channel's name as clients say it.
        kind: How it is read.
        history: Its messages. Read and written under `lock`, for publishers live in any thread.
        directory: Where its name is.
    """

    __slots__ = (
        "__weakref__",
        "acknowledged",
        "adopt",
        "authorize",
        "chunks",
        "closed",
        "directory",
        "history",
        "html",
        "kind",
        "lineage",
        "linger",
        "listeners",
        "live",
        "local",
        "lock",
        "marked",
        "name",
        "observers",
        "outcomes",
        "sent",
        "stop",
        "used_at",
        "visits",
        "want",
    )

    def __init__(self, name: str, kind: Kind, history: History, directory: Names) -> None:
        self.name: str = name
        self.directory: Names = directory
        self.kind: Kind = kind
        self.history: History = history
        self.lock: threading.Lock = threading.Lock()
        self.authorize: Authorize | None = None  # who may read it; `None` is everyone
        self.html: Html | None = None  # makes the HTML of a value, for clients that ask for it
        self.lineage: Lineage | None = None  # of a declared channel that was started again
        # In the order in which they came, which is about that of their memory: measured with 1,000
        # listeners, a set costs a third more per delivery.
        self.listeners: dict[Listener, None] = {}
        self.outcomes: Outcomes = Outcomes()
        self.closed: str | None = None  # why it ended: `ended`, `failed`, `full` or `restarted`
        self.sent: int = 0  # the highest offset that was ever in an answer
        self.acknowledged: int = 0  # the highest offset that the client of a process channel has
        self.marked: bool = False  # whether it waits for the flush
        self.visits: int = 0  # how many listeners or references there ever were
        self.used_at: float = -math.inf  # when the application last published, or referred to it
        self.linger: float = 0.0  # seconds that it stays without use, or after its end
        self.observers: tuple[Callable[[int], None], ...] = ()  # told the count of listeners
        self.want: Callable[[int], None] | None = None  # asks the source for an offset
        self.local: bool = True  # whether all messages there are come from this worker
        self.live: bool = False  # if not, whether every message of the others comes here
        self.adopt: bool = False  # whether every worker makes it by the same line of code
        self.stop: Callable[[], None] | None = None  # stops the source
        self.chunks: Chunks = Chunks()  # shared by all listeners at the same place

    @property
    def latest(self) -> Feed:
        """The newest incarnation of the channel; this one, if it was not restarted."""
        return self if self.lineage is None else self.lineage.newest

    @property
    def successor(self) -> Feed | None:
        """The newest incarnation, if this one is not it."""
        latest = self.latest
        return None if latest is self else latest

    def succeed(self, feed: Feed) -> None:
        """Be the next incarnation of a channel, after another feed."""
        self.lineage = feed.lineage = feed.lineage or Lineage(self)
        self.lineage.newest = self

    @property
    def readable(self) -> bool:
        """Whether there is a history to read: a full channel has none and never will."""
        return self.closed != "full"

    @property
    def window(self) -> int:
        """The highest offset that may be read of an on-demand source.

        It is as far beyond what the client has acknowledged as the history has places, so no
        message that the client does not have is ever displaced.
        """
        return self.acknowledged + self.history.size

    @property
    def epoch(self) -> str:
        """Which incarnation of the channel its messages are of."""
        return self.history.epoch

    @property
    def first(self) -> int:
        """The offset of the oldest message held, or of the next to come."""
        return self.history.first

    @property
    def top(self) -> int:
        """The offset of the newest message."""
        return self.history.top

    @property
    def spec(self) -> ChannelSpec:
        """What workers that share the channel must agree about."""
        history = self.history
        return ChannelSpec(
            name=self.name,
            kind=self.kind.value,
            size=history.size,
            max_bytes=history.max_bytes,
            adopt=self.adopt,
        )

    def proves(self, start: Start) -> bool:
        """Tell whether the messages held here prove where a reader begins.

        If not, only the broker can say so: a position that is unknown here may be of a message
        that another worker has already, and an epoch one that this worker has not heard of.
        """
        if self.local or not self.live:
            return self.local
        if isinstance(start, First):
            return self.kind.only_last or self.history.first == 1
        if not isinstance(start, Position) or self.kind.only_last:
            return True
        history = self.history
        with self.lock:
            return start.epoch == history.epoch and history.first - 1 <= start.offset <= history.top

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages of the broker's log, see `Log.receive`. Thread-safe."""
        with self.lock:
            received = self.history.receive(epoch, first, run)
            if received is Received.APPENDED:
                self.chunks.forget()
            return received

    def reset(self, epoch: str, first: int) -> None:
        """Forget all messages before those of the broker's log come. Thread-safe."""
        with self.lock:
            self.history.reset(epoch, first)
            self.chunks.forget()

    def append(self, data: bytes) -> int:
        """Add a message; thread-safe.

        Args:
            data: The value as JSON.

        Returns:
            Its offset.

        Raises:
            ChannelClosed: The feed has ended.
            ChannelFull: A message that was never sent would have to go for it. The history is
                emptied, and the channel never says anything again.
        """
        with self.lock:
            if self.closed is not None:
                raise ChannelClosed.of(self.name, self.closed)
            self.chunks.forget()
            if self.kind.may_fill and self.history.displaced_by(len(data)) > self.sent:
                self.closed = "full"
                self.history.drop_through(self.history.top)
                raise ChannelFull(self.name)
            return self.history.append(data)

    def locate(self, start: Start) -> int | None:
        """Find where a reader begins.

        Args:
            start: Where it asked to begin.

        Returns:
            The offset after which it reads on, whether or not that is still held; `None` if there
            is no such place: it is of another epoch, or beyond the top, or the first message has
            gone.

        Source: docs/semantics.md#start-positions.
        """
        history = self.history
        with self.lock:
            if isinstance(start, Now):
                return history.top
            if isinstance(start, Last):
                return max(history.top - start.count, history.first - 1)
            if isinstance(start, First):
                return self._before_first()
            epoch, offset = start.epoch, start.offset
            if self.kind.only_last:
                return min(offset, history.top) if epoch == history.epoch else 0
            if start == NEXT_INCARNATION and self.kind.one_reader:
                return 0
            return offset if epoch == history.epoch and offset <= history.top else None

    def mark_sent(self, upto: int) -> None:
        """Messages up to an offset are in an answer: they may be displaced by newer ones."""
        with self.lock:
            self.sent = max(self.sent, upto)

    def position(self, offset: int) -> Position:
        """Return the position of an offset in this incarnation."""
        return Position(self.history.epoch, offset)

    def acknowledge(self, offset: int) -> None:
        """The client has all up to an offset, which `locate` found."""
        if self.kind.one_reader:
            self.outcomes.confirm(0, offset)  # it is the only one, and says so in order
            with self.lock:
                self.sent = max(self.sent, offset)
                self.acknowledged = max(self.acknowledged, offset)
                if offset >= self.history.first:
                    self.history.drop_through(offset)
                    self.chunks.forget()
        else:
            self.outcomes.acknowledge(offset)

    def render(self, encode: Encoder, after: int, max_bytes: int | None = None) -> Rendered | None:
        """Encode what is held after an offset, once for all listeners at that offset.

        Args:
            encode: How the transport writes messages of a channel.
            after: The last offset the listener has.
            max_bytes: How many bytes may be written, one message at least; `None` means all.

        Returns:
            What is written; `None` is a gap.
        """
        key = (encode, after, max_bytes)
        found = self.chunks.find(key)  # may lack what another thread publishes right now
        if found is not None:
            return found
        history = self.history
        with self.lock:
            top = history.top
            if self.kind.only_last:
                after = max(after, top - 1)
            if max_bytes is None or after >= top - 1:
                run = history.after(after)
            else:
                around = encode.around_each(self.name, history.epoch, top)
                run = history.after(after, max_bytes + encode.gap, around)
        if run is None:
            return None
        # Without the lock: the application renders HTML, and may use the channel as it does.
        rendered = encode.render(self.name, history.epoch, run, max_bytes)
        if not run:
            rendered.upto = after
        with self.lock:
            if history.top == top:  # else it lacks what was published meanwhile
                self.chunks.keep(key, rendered)
        return rendered

    def read(self, after: int, upto: int) -> list[Message] | None:
        """Return the messages `after + 1 … upto`; of a newest channel its newest one.

        Args:
            after: The offset before the first of them.
            upto: The last of them, which there was.

        Returns:
            The messages; `None` if the first of them is no longer held.
        """
        with self.lock:
            if self.kind.only_last:
                after, upto = self.history.top - 1, self.history.top
            run = self.history.after(after)
            return None if run is None else run[: upto - after]

    def add(self, listener: Listener) -> None:
        """Count a listener in."""
        self.listeners[listener] = None
        self.visits += 1
        for observe in self.observers:
            observe(len(self.listeners))

    def remove(self, listener: Listener) -> None:
        """Count a listener out."""
        self.listeners.pop(listener, None)
        if not self.listeners and self.chunks.size:
            with self.lock:
                self.chunks.forget()
        for observe in self.observers:
            observe(len(self.listeners))

    def _before_first(self) -> int | None:
        """Return the offset before the first message for a reader; `None` if that has gone."""
        before = self.history.first - 1
        if self.kind.only_last:
            return before
        return before if before <= self.acknowledged else None


class Listener(Timer):
    """One connection that is open on channels: a cursor for each, and a way to be woken.

    Attributes:
        cursors: For each feed the last offset that the client has.
        expected: The channels it waits for that do not exist yet.
        caller: Whose connection it is; `None` for nobody's that we know.
        woken: Why it woke; `None` while it waits.
    """

    __slots__ = ("__weakref__", "caller", "cursors", "expected", "woken")

    stays: ClassVar[bool] = False
    """Whether it is told more than once, so that it reads on from where it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors: dict[Feed, int] = {}
        self.expected: tuple[tuple[Names, str], ...] = ()
        self.caller: Any = None
        self.woken: Wake | None = None

    def has_news(self, feed: Feed) -> bool:
        """Tell whether there is anything on a feed that it has not got."""
        return feed.closed is not None or self.cursors.get(feed) != feed.history.top

    def notice(self, feed: Feed, now: float) -> None:
        """Hear that there may be something new on a feed.

        Args:
            feed: Where.
            now: What time it is.
        """
        if self.has_news(feed):  # not if it came after the message
            self.wake(Wake.MESSAGE)

    def wake(self, why: Wake) -> None:
        """Wake the connection, once; what comes later it will see when it looks."""
        if self.woken is None:
            self.woken = why
            self.rouse()

    def gone(self) -> Wake:
        """Take note that the client has left. A wake in the same moment has nobody to answer."""
        self.end(Wake.GONE)
        return Wake.GONE

    def end(self, why: Wake) -> None:
        """Take note of why it does not wait any more, without rousing it."""
        self.woken = why

    def reason(self) -> Wake | None:
        """Return why it woke."""
        return self.woken

    def expire(self) -> None:
        """The hold has lasted long enough."""
        self.wake(Wake.TIMEOUT)

    @abstractmethod
    def forbid(self, feed: Feed) -> None:
        """It may not read a feed any more: nothing of it is told from now on, but that."""

    @abstractmethod
    def rouse(self) -> None:
        """Make the waiting connection go on. Must not block or raise."""
