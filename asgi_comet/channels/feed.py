"""Feeds and listeners: the shared state of one channel, and the state of one listener.

Owns which listeners follow a channel, and where each of them is. Must not know names, sources,
identities, or the bytes that a transport sends.

Divergence from `Ocsigen_comet` and `eliom_comet`: a listener is a cursor into the history of the
feed, not a queue.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Any, ClassVar

from asgi_comet._runtime.counters import ChannelCounters, TransportCounters
from asgi_comet._runtime.recent import Recent
from asgi_comet._runtime.timers import Timer
from asgi_comet.brokers.audience import Progress
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.log import MessageLog
from asgi_comet.channels.outcomes import Outcomes
from asgi_comet.channels.right import Right
from asgi_comet.channels.sampling import Sample
from asgi_comet.core.history import History
from asgi_comet.core.runs import Chunk, Encoder
from asgi_comet.protocol.sse import Html

__all__ = ["Authorize", "Chunk", "Encoder", "Feed", "Listener", "Wake"]

Authorize = Callable[..., Awaitable[bool] | bool]
"""Return whether a client may read a channel.

Called with the connection, an `HTTPConnection`, and the words of the channel's name.
"""


UNCOUNTED = ChannelCounters("", Recent())
UNCOUNTED_CONNECTIONS = TransportCounters("")


class Wake(Enum):
    """Why a listener woke."""

    MESSAGE = "message"
    TIMEOUT = "timeout"
    DEACTIVATED = "deactivated"
    REPLACED = "replaced"
    CLOSED = "closed"  # the client process has closed
    MOVED = "moved"  # the session has another id: the client resumes with the new cookie
    GONE = "gone"


class Lineage:
    """The incarnations of one channel. Each holds a reference to the newest only.

    Attributes:
        newest: The newest incarnation.
    """

    __slots__ = ("newest",)

    def __init__(self, newest: Feed) -> None:
        self.newest: Feed = newest


class Names(ABC):
    """The names of one scope, and their feeds."""

    @abstractmethod
    def find(self, name: str) -> Feed | None:
        """Return the feed of a channel that is live or still readable."""

    @abstractmethod
    def replace(self, feed: Feed, successor: Feed) -> bool:
        """Replace a live feed by its next incarnation.

        Returns:
            Whether the feed was live. A feed that has just ended stays ended.
        """

    @abstractmethod
    def end(self, feed: Feed, *, keep: bool) -> bool:
        """Free the name of a feed that ended.

        Args:
            feed: The feed.
            keep: Whether its messages can still be read.

        Returns:
            Whether the feed was live.
        """

    @abstractmethod
    def forget(self, feed: Feed) -> None:
        """Forget a feed that ended, but remember its name."""

    @abstractmethod
    def unexpect(self, name: str, listener: Listener) -> None:
        """Remove a listener from those that wait for a channel of that name."""


class Feed(MessageLog):
    """The state that all listeners of one channel share.

    Args:
        name: The channel's name as clients write it.
        kind: The kind of the channel.
        history: The messages.
        directory: The directory that holds the name.
    """

    __slots__ = (
        "__weakref__",
        "authorize",
        "counters",
        "demand",
        "directory",
        "html",
        "lasting",
        "lineage",
        "linger",
        "listeners",
        "marked",
        "marked_at",
        "observers",
        "outcomes",
        "right",
        "sample",
        "stop",
        "used_at",
        "uses",
        "want",
        "wished",
    )

    def __init__(self, name: str, kind: Kind, history: History, directory: Names) -> None:
        super().__init__(name, kind, history)
        self.directory: Names = directory
        self.authorize: Authorize | None = None  # which clients may read; `None` is every client
        self.html: Html | None = None  # renders a value for clients that ask for HTML
        self.lineage: Lineage | None = None  # of a declared channel that was restarted
        # A dict keeps the order of arrival, which is about the order in memory. Measured with 1,000
        # listeners: a set costs a third more per delivery.
        self.listeners: dict[Listener, None] = {}
        self.outcomes: Outcomes = Outcomes()
        self.counters: ChannelCounters = UNCOUNTED  # until the channel is added to the others
        self.sample: Sample | None = None  # the message whose acknowledgements are measured
        self.marked: bool = False  # whether the feed waits for the flush
        self.marked_at: float = 0.0  # since when
        self.uses: int = 0  # count of all listeners and references so far
        self.used_at: float = -math.inf  # when the application last published or made a reference
        self.linger: float = 0.0  # seconds to keep the channel unused, or after its end
        self.observers: tuple[Callable[[int], None], ...] = ()  # called with the count of listeners
        self.lasting: bool = False  # whether the channel was made before the lifespan started
        self.want: Callable[[int], None] | None = None  # asks the source for an offset
        self.demand: Callable[[int], None] | None = None  # the same, where the source is read
        self.wished: int = 0  # the highest offset that a reader in another worker has asked for
        self.stop: Callable[[], None] | None = None  # stops the source
        self.right: Right | None = None  # whether this worker reads the source; `None` without one

    @property
    def latest(self) -> Feed:
        """The newest incarnation of the channel; this feed, if the channel was not restarted."""
        return self if self.lineage is None else self.lineage.newest

    @property
    def successor(self) -> Feed | None:
        """The newest incarnation; `None` if this feed is the newest."""
        latest = self.latest
        return None if latest is self else latest

    def succeed(self, feed: Feed) -> None:
        """Become the next incarnation of the channel after a feed."""
        self.lineage = feed.lineage = feed.lineage or Lineage(self)
        self.lineage.newest = self

    def inherit(self, feed: Feed) -> None:
        """Take over the properties that all incarnations of a channel share."""
        self.share(feed)
        self.authorize, self.html, self.linger = feed.authorize, feed.html, feed.linger
        self.stop, self.right, self.lasting = feed.stop, feed.right, feed.lasting
        self.counters = feed.counters
        self.uses, self.used_at, self.observers = feed.uses, feed.used_at, feed.observers
        if self.broker is not None and feed.want is not None:
            self.demand, self.want = feed.demand, partial(self.broker.want, self)

    def reset(self, epoch: str, first: int) -> None:
        """Drop all messages, before the broker's log is received. Call in the loop's thread."""
        if epoch != self.epoch:
            self.outcomes.forget()
        super().reset(epoch, first)

    def rebase(self, epoch: str, first: int) -> None:
        """Go on in another epoch; all readers get the newest message, and are not told `full`."""
        self.reset(epoch, first)
        self.outcomes.forget()
        for listener in self.listeners:
            listener.cursors[self] = first - 1

    def acknowledge(self, offset: int) -> None:
        """Acknowledge all messages up to an offset, which `locate` returned."""
        self.confirm(offset)
        if self.broker is not None:
            self.broker.acknowledge(self, offset)

    def confirm(self, offset: int) -> None:
        """Do the same in this worker only: the broker knows."""
        if self.kind.one_reader:
            outcomes = self.outcomes  # of the only client, which acknowledges in order
            if offset >= outcomes.skipped:
                outcomes.confirm(outcomes.skipped, offset)
            self.drop_acknowledged(offset)
        else:
            self.outcomes.acknowledge(offset)

    def skip(self, upto: int) -> None:
        """Record that a client goes on after an offset, and lacks what is before.

        The client has asked for the newest messages only, or is told `full`.
        The only client then acknowledges this offset, but has no more messages than it has now.
        """
        outcomes = self.outcomes
        after = outcomes.confirmed
        if self.kind.one_reader and upto > max(after, outcomes.skipped):
            outcomes.skip(after, upto)
            if self.broker is not None:
                self.broker.skip(self, after, upto)

    def learn(self, progress: Progress | None) -> None:
        """Record what the store knows of the only client, if that is of the same epoch."""
        if progress is not None and progress.epoch == self.epoch:
            self.outcomes.learn(progress.acknowledged, progress.skipped)

    def add(self, listener: Listener) -> None:
        """Add a listener."""
        self.listeners[listener] = None
        self.uses += 1
        for observe in self.observers:
            observe(len(self.listeners))

    def remove(self, listener: Listener) -> None:
        """Remove a listener."""
        self.listeners.pop(listener, None)
        if not self.listeners and self.chunks.size:
            with self.lock:
                self.chunks.forget()
        for observe in self.observers:
            observe(len(self.listeners))


class Listener(Timer):
    """One connection that follows channels: a cursor for each channel, and a way to wake.

    Args:
        counters: The counts of the connection's transport.

    Attributes:
        cursors: For each feed, the last offset that the client has.
        counters: The counts of the connection's transport.
        expected: Names of channels that do not exist yet and that the listener waits for.
        noticed_at: When the message was published that the flush left to the connection's own task,
            in seconds of the clock; 0 if the flush left none.
        claim: The `Claim` of the connection to a session; `None` without one.
        woken: The reason why the listener woke; `None` while it waits.
    """

    __slots__ = ("__weakref__", "claim", "counters", "cursors", "expected", "noticed_at", "woken")

    stays: ClassVar[bool] = False
    """Whether the listener gets several answers, each continuing after the last."""

    def __init__(self, counters: TransportCounters = UNCOUNTED_CONNECTIONS) -> None:
        super().__init__()
        self.counters: TransportCounters = counters
        self.cursors: dict[Feed, int] = {}
        self.expected: tuple[tuple[Names, str], ...] = ()
        self.claim: Any = None
        self.noticed_at: float = 0.0
        self.woken: Wake | None = None

    def has_news(self, feed: Feed) -> bool:
        """Return whether a feed has anything that the listener does not have yet."""
        return feed.closed is not None or self.cursors.get(feed) != feed.history.top

    def notice(self, feed: Feed, now: float) -> None:
        """Wake the listener if a feed has news for it.

        Args:
            feed: The feed that was marked.
            now: The current time, in seconds of the clock.
        """
        if self.has_news(feed):  # not if the listener attached after the message
            self.expect_delivery(feed.marked_at)
            self.wake(Wake.MESSAGE)

    def expect_delivery(self, published: float) -> None:
        """Measure from that time on how long the next delivery takes; the earliest time counts."""
        self.noticed_at = self.noticed_at or published

    def count_delivery(self, now: float) -> None:
        """Count how long the delivery of the message of `noticed_at` took."""
        if self.noticed_at:
            self.counters.delivery.observe(now - self.noticed_at)
            self.noticed_at = 0.0

    def wake(self, why: Wake) -> None:
        """Wake the connection, once. The first reason counts."""
        if self.woken is None:
            self.woken = why
            self.rouse()

    def gone(self) -> Wake:
        """Record that the client has disconnected; overrides a wake in the same moment."""
        self.end(Wake.GONE)
        return Wake.GONE

    def end(self, why: Wake) -> None:
        """Record why the listener waits no longer, without resuming the connection."""
        self.woken = why

    def reason(self) -> Wake | None:
        """Return the reason why the listener woke."""
        return self.woken

    def ended_by(self, *, stopping: bool) -> str:
        """Return the reason why the connection has ended, for the figures.

        Args:
            stopping: Whether the server stops.
        """
        why = self.woken
        if why in (None, Wake.MESSAGE, Wake.TIMEOUT):
            usual = "answered" if not self.stays else "time" if why is Wake.TIMEOUT else "closed"
            return "shutdown" if stopping and why is not Wake.MESSAGE else usual
        return "client" if why is Wake.GONE else why.value

    def expire(self) -> None:
        """Wake the listener at the end of the hold time."""
        self.wake(Wake.TIMEOUT)

    @abstractmethod
    def forbid(self, feed: Feed) -> None:
        """Revoke the right to read a feed: the client is told so, and nothing else of the feed."""

    @abstractmethod
    def rouse(self) -> None:
        """Resume the waiting connection. Must not block or raise."""
