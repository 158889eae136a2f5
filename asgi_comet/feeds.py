"""Feeds and listeners: what all who listen to one channel share, and what one of them is.

Owns how a channel of each kind is read: where a start position leads, what is a gap, what is full.
Must not know names, sources, identities, or what bytes a transport sends.

Divergences from `Ocsigen_comet` and `eliom_comet`:

1. A feed keeps a positioned history with an epoch; a listener is a cursor into it.
2. What was sent stays until the client's next position acknowledges it.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import ChannelClosed, ChannelFull
from .history import History
from .messages import NEXT_INCARNATION, Last, Message, Now, Position, Start
from .outcomes import Outcomes
from .timers import Timer

if TYPE_CHECKING:
    from .directory import Directory
    from .processes import Caller

__all__ = ["Authorize", "Encoder", "Feed", "Kind", "Listener", "Rendered", "Wake"]

Encoder = Callable[[str, str, list[Message]], Any]
"""Writes a run of messages as a transport does, given the channel's name and epoch: bytes or text.
Encoders that are equal write the same."""

Authorize = Callable[..., Awaitable[bool] | bool]
"""Tells whether somebody may read a channel, given the connection, an `HTTPConnection`, and the
words of the channel's name."""


class Kind(Enum):
    """The kinds of channel. Source: semantics.md, "Kinds of channel"."""

    SITE = "site"
    PROCESS = "process"
    UNLIMITED = "unlimited"
    NEWEST = "newest"


class Wake(Enum):
    """Why a listener woke."""

    MESSAGE = "message"
    TIMEOUT = "timeout"
    DEACTIVATED = "deactivated"
    REPLACED = "replaced"
    CLOSED = "closed"  # its client process
    MOVED = "moved"  # its session has another id: it resumes with the new cookie
    GONE = "gone"


class Rendered:
    """A run of messages as a transport writes it, shared by all listeners at the same place.

    Attributes:
        data: Bytes or text.
        upto: The offset it reaches to.
        message: The same as the transport says it to the server, once it was sent.
        handed: Whether a server has taken it for a client that need not acknowledge it.
    """

    __slots__ = ("data", "handed", "message", "upto")

    def __init__(self, data: Any, upto: int) -> None:
        self.data: Any = data
        self.upto: int = upto
        self.message: Any = None
        self.handed: bool = False


class Lineage:
    """The incarnations of one channel, of which none holds another but the newest.

    Attributes:
        newest: The last of them.
    """

    __slots__ = ("newest",)

    def __init__(self, newest: Feed) -> None:
        self.newest: Feed = newest


class Feed:
    """What all listeners of one channel share.

    Args:
        name: The channel's name as clients say it.
        kind: How it is read.
        history: Its messages. Read and written under `lock`, for publishers live in any thread.
        directory: Where its name is.
    """

    __slots__ = (
        "_rendered",
        "_rendered_bytes",
        "authorize",
        "closed",
        "directory",
        "history",
        "kind",
        "lineage",
        "listeners",
        "lock",
        "marked",
        "name",
        "observers",
        "outcomes",
        "sent",
        "stop",
        "visits",
        "want",
    )

    def __init__(self, name: str, kind: Kind, history: History, directory: Directory) -> None:
        self.name: str = name
        self.directory: Directory = directory
        self.kind: Kind = kind
        self.history: History = history
        self.lock: threading.Lock = threading.Lock()
        self.authorize: Authorize | None = None  # who may read it; `None` is everyone
        self.lineage: Lineage | None = None  # of a declared channel that was started again
        # In the order in which they came, which is about that of their memory: measured with 1,000
        # listeners, a set costs a third more per delivery.
        self.listeners: dict[Listener, None] = {}
        self.outcomes: Outcomes = Outcomes()
        self.closed: str | None = None  # why it ended: `ended`, `failed`, `full` or `restarted`
        self.sent: int = 0  # the highest offset that was ever in an answer
        self.marked: bool = False  # whether it waits for the flush
        self.visits: int = 0  # how many listeners or references there ever were
        self.observers: tuple[Callable[[int], None], ...] = ()  # told the count of listeners
        self.want: Callable[[int], None] | None = None  # asks the source for an offset
        self.stop: Callable[[], None] | None = None  # stops the source
        # Encoded runs by transport, cursor and size; shared by all who stand there, forgotten on
        # publish.
        self._rendered: dict[tuple[Encoder, int, int | None], Rendered] = {}
        self._rendered_bytes = 0

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
            self._forget_rendered()
            if self.kind is Kind.PROCESS and self.history.displaced_by(len(data)) > self.sent:
                self.closed = "full"
                self.history.drop_through(self.history.top)
                raise ChannelFull(self.name)
            return self.history.append(data)

    def place(self, start: Start) -> int | None:
        """Find where a reader begins.

        Args:
            start: Where it asked to begin.

        Returns:
            The offset after which it reads on, whether or not that is still held; `None` if there
            is no such place: it is of another epoch, or beyond the top.

        Source: semantics.md, "Positions".
        """
        history = self.history
        with self.lock:
            if isinstance(start, Now):
                return history.top
            if isinstance(start, Last):
                return max(history.top - start.count, history.first - 1)
            epoch, offset = start.epoch, start.offset
            if self.kind is Kind.NEWEST:
                return min(offset, history.top) if epoch == history.epoch else 0
            if start == NEXT_INCARNATION and self.kind is not Kind.SITE:
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
        """The client has all up to an offset, which `place` found."""
        if self.kind is Kind.PROCESS or self.kind is Kind.UNLIMITED:
            self.outcomes.confirm(0, offset)  # it is the only one, and says so in order
            with self.lock:
                self.sent = max(self.sent, offset)
                if offset >= self.history.first:
                    self.history.drop_through(offset)
                    self._forget_rendered()
        else:
            self.outcomes.acknowledge(offset)

    def render(self, encode: Encoder, after: int, max_bytes: int | None = None) -> Rendered | None:
        """Encode what is held after an offset, once for all listeners at that offset.

        Args:
            encode: How the transport writes messages of a channel.
            after: The last offset the listener has.
            max_bytes: How many bytes of data to encode, one message at least; `None` means all.

        Returns:
            What is written; `None` is a gap.
        """
        key = (encode, after, max_bytes)
        found = self._rendered.get(key)  # may lack what another thread publishes right now
        if found is not None:
            return found
        with self.lock:
            if self.kind is Kind.NEWEST:
                after = max(after, self.history.top - 1)
            run = self.history.after(after, max_bytes)
            if run is None:
                return None
            encoded = encode(self.name, self.history.epoch, run)
            rendered = Rendered(encoded, run[-1].offset if run else after)
            self._keep_rendered(key, rendered)
            return rendered

    def add(self, listener: Listener) -> None:
        """Count a listener in."""
        self.listeners[listener] = None
        self.visits += 1
        for observe in self.observers:
            observe(len(self.listeners))

    def remove(self, listener: Listener) -> None:
        """Count a listener out."""
        self.listeners.pop(listener, None)
        for observe in self.observers:
            observe(len(self.listeners))

    def _keep_rendered(self, key: tuple[Encoder, int, int | None], rendered: Rendered) -> None:
        # At most one run, or as many bytes as the history itself may hold.
        if self._rendered_bytes + len(rendered.data) > self.history.max_bytes:
            self._forget_rendered()
        self._rendered[key] = rendered
        self._rendered_bytes += len(rendered.data)

    def _forget_rendered(self) -> None:
        self._rendered.clear()
        self._rendered_bytes = 0


class Listener(Timer):
    """One connection that is open on channels: a cursor for each, and a way to be woken.

    Attributes:
        cursors: For each feed the last offset that the client has.
        expected: The channels it waits for that do not exist yet.
        caller: Whose connection it is; `None` for nobody's that we know.
        woken: Why it woke; `None` while it waits.
    """

    __slots__ = ("caller", "cursors", "expected", "woken")

    stays: ClassVar[bool] = False
    """Whether it is told more than once, so that it reads on from where it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors: dict[Feed, int] = {}
        self.expected: tuple[tuple[Directory, str], ...] = ()
        self.caller: Caller | None = None
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
