"""Channels of all kinds, and the registry that makes, counts and ends them.

Owns how many channels live, and when one that nobody holds is reclaimed, or one that ended is
forgotten. Must not know transports, requests, sessions or the wire.

Divergences from `Ocsigen_comet.Channels` and `Eliom_comet.Channel`:

1. A named channel lives until its source ends or it is closed, whether or not somebody keeps the
   `Channel`; CPython would reclaim a dropped result at once, where OCaml took its time.
2. An unnamed one that had listeners or references is reclaimed at the earliest `linger` seconds
   after the last. A tab that is away keeps its own until it comes back or closes.
3. Whoever missed messages is told so by positions, not by the absence of an answer.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from .annotations import item_type
from .brokers.base import Broker
from .channel import Channel, ExternalChannel
from .delivery import Delivery
from .directory import Place
from .encoding import Encode, make_encode
from .errors import ChannelFull, MessageTooLarge, TooManyVirtualChannels
from .fanout import Fanout
from .feeds import Authorize, Feed, Kind
from .history import History
from .html import Html
from .lingering import Forget, Linger
from .names import check_name, check_own_name, fresh_name
from .processes import ClientProcess
from .reserved import Reserved
from .runtime import Runtime
from .settings import Settings
from .sources import Demand, Pump, close_source
from .unserved import Unserved

__all__ = ["Channel", "Channels", "ExternalChannel", "Options", "Source"]

T = TypeVar("T")

Source = AsyncIterator[T] | Callable[[], AsyncIterator[T]]
"""An async iterator, or a function without parameters that makes one; its annotation then tells
the type of the channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a channel is to be like.

    Attributes:
        size: How many messages it holds; of one that is read on demand, how many it is read ahead
            of what the client has acknowledged.
        name: Its name, without the `~` of a process channel; `None` for a fresh identifier.
        linger: For how many seconds it stays without use, or after its end; `None` is
            `Settings.linger`.
        type: The type of its values, anything pydantic knows; `None` for any value.
        authorize: Who may read it, at the site; `None` is everyone.
        html: Makes the HTML of its values; `None` if it has none.
    """

    size: int
    name: str | None = None
    linger: float | None = None
    type: Any = None
    authorize: Authorize | None = None
    html: Html | None = None


class Channels:
    """All channels, and the low-level way to make one: `create`. Thread-safe.

    Args:
        settings: Bounds, and how long a forgotten channel lingers.
        site: Where site channels live.
        broker: Where messages go.
        fanout: Who is told when a channel ends.
        runtime: Where sources are read and deadlines pass.

    Attributes:
        reserved: The names that are declared.
        restarts: How often the source of a declared channel was started again.

    Source: `Ocsigen_comet.Channels`.
    """

    def __init__(
        self,
        settings: Settings,
        site: Place,
        *,
        broker: Broker,
        fanout: Fanout,
        runtime: Runtime,
    ) -> None:
        self.site: Place = site
        self.reserved: Reserved = Reserved()
        self.restarts: int = 0
        self._settings = settings
        self._broker = broker
        self._unserved = Unserved(broker)
        self._store: Broker | Unserved = self._unserved  # until the first lifespan
        self._fanout = fanout
        self._runtime = runtime
        self._lock = site.directory.lock
        self._live = 0
        self._stopping = False
        # Feeds whose Channel was garbage-collected, and where they live. A finalizer may run
        # anywhere, even while this very thread holds the lock, so it only appends here.
        self._dropped: deque[tuple[Feed, Place]] = deque()
        self._lasting: set[Feed] = set()  # of the site, made before the lifespan started
        self._sources: WeakValueDictionary[int, AsyncIterator[Any]] = WeakValueDictionary()

    def __len__(self) -> int:
        self.collect()
        return self._live

    def create(self, name: str | None = None) -> Channel[str]:
        """Make a writable site channel of text.

        Args:
            name: Its identifier; by default a fresh one of 144 random bits, which only those
                can know whom the application tells.

        Returns:
            The channel. Keep it if it is unnamed: one that nobody holds is reclaimed.

        Raises:
            InvalidName: No channel may have that name.
            NonUniqueChannelName: A live channel has it, or it is declared.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        options = Options(name=name, size=self._settings.history_size, type=str)
        return self.make(Kind.SITE, self.site, None, options)

    def make(
        self, kind: Kind, place: Place, source: Source[Any] | None, options: Options
    ) -> Channel[Any]:
        """Make a channel of any kind for the application, see `Comet.create` and its sisters."""
        self._check_name(place, options.name)
        return self._open(kind, place, source, options)

    def open(
        self,
        kind: Kind,
        place: Place,
        source: Source[Any] | None,
        *,
        name: str | None,
        size: int,
        type_: Any,
    ) -> Channel[Any]:
        """Make a channel of our own, which may have a name that is reserved or declared."""
        return self._open(kind, place, source, Options(name=name, size=size, type=type_))

    def find(self, name: str) -> Feed | None:
        """Return the feed of a site channel that lives, or can still be read."""
        return self.site.directory.find(name)

    def make_feed(self, kind: Kind, place: Place, options: Options) -> Feed:
        """Make the feed of a new channel, which lives from now on."""
        self.collect()
        name = options.name
        own = fresh_name() if name is None else check_name(name)
        history = History(
            size=1 if kind is Kind.NEWEST else options.size, max_bytes=self._settings.history_bytes
        )
        feed = Feed(place.prefix + own, kind, history, place.directory)
        feed.authorize = options.authorize
        feed.html = options.html
        feed.linger = self._settings.linger if options.linger is None else options.linger
        limit = self._settings.max_virtual_channels
        with self._lock:
            if limit is not None and self._live >= limit:
                raise TooManyVirtualChannels(limit)
            waiting = place.directory.add(feed)
            self._live += 1
        if waiting:
            self._runtime.loop.run(lambda: self._fanout.join(waiting, feed))
        return feed

    def renew(self, feed: Feed) -> Feed:
        """Let a channel go on in another incarnation; its readers are told `full`.

        In the loop's thread. What the old one holds can still be read by those who listen to it.

        Returns:
            The feed of the new incarnation; the old one, if it ended in this very moment.
        """
        history = History(size=feed.history.size, max_bytes=feed.history.max_bytes)
        new = Feed(feed.name, feed.kind, history, feed.directory)
        new.authorize, new.stop, new.visits = feed.authorize, feed.stop, feed.visits
        new.observers, new.used_at, new.linger = feed.observers, feed.used_at, feed.linger
        new.html = feed.html
        if not feed.directory.replace(feed, new):
            return feed
        feed.observers = ()
        self._fanout.close(feed, "restarted")
        return new

    def publish(self, feed: Feed, data: bytes) -> Delivery:
        """Publish encoded data on a feed, see `Channel.publish`."""
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        try:
            stored = self._store.append(feed, data)
        except ChannelFull:
            self.end(feed, "full")
            raise
        return Delivery(self._runtime, feed, stored, self._settings.timeout)

    def touch(self, feed: Feed) -> None:
        """Note that the application uses a channel now. Thread-safe."""
        feed.used_at = self._runtime.clock.now()

    def make_demand(self, feed: Feed) -> Demand:
        """Let a feed read its source on demand: at once, if a listener waited for the channel."""
        demand = Demand(self._settings.message_limit)
        feed.want = demand.ask

        def ask() -> None:
            if feed.listeners:
                self._broker.want(feed, feed.window)

        self._runtime.loop.run(ask)
        return demand

    def end(self, feed: Feed, reason: str, *, keep: bool = True) -> None:
        """End a feed and free its name, see `Channel.close`. Idempotent, thread-safe.

        Args:
            feed: The feed.
            reason: `ended`, `failed` or `full`.
            keep: Whether what it holds can be read for `linger` seconds; a full one answers so for
                as long as its client process lives.
        """
        directory = feed.directory
        self._lasting.discard(feed)
        if directory.end(feed, keep=keep):
            with self._lock:
                self._live -= 1
            if not keep:
                directory.forget(feed)
            elif reason != "full":
                forget = Forget(feed, self._runtime.timers, feed.linger)
                self._runtime.background.start(forget.begin)  # from when the lifespan runs
        self._fanout.close(feed, reason)
        stop = feed.stop  # which is taken away once there is nothing to stop
        if stop is not None:
            stop()

    @property
    def stopping(self) -> bool:
        """Whether the lifespan has stopped, or is about to: no source is to be read."""
        return self._stopping

    def begin(self) -> None:
        """The lifespan starts: sources are read from now on."""
        self._stopping = False
        self._unserved.serve()
        self._store = self._broker
        self.collect()
        self._lasting = {f for f in self.site.directory.feeds() if f.closed is None}

    def stop(self) -> None:
        """End the channels of the site: the server stops.

        A channel without a source that was made before the lifespan started stays, empty and in
        another incarnation, for the next lifespan. A source that comes later is closed without
        being read.
        """
        self._stopping = True
        for feed in self.site.directory.feeds():
            if feed.closed is not None:
                feed.directory.forget(feed)
            elif feed.stop is None and feed in self._lasting:
                self._lasting.add(self.renew(feed))
            else:
                self.end(feed, "ended", keep=False)

    def end_unused(self, feed: Feed) -> None:
        """End a channel that nobody holds or uses; nobody could read what remains."""
        self.end(feed, "ended", keep=False)

    def collect(self) -> None:
        """Reclaim the dropped channels that nobody uses; let the others linger."""
        for _ in range(len(self._dropped)):
            try:
                feed, place = self._dropped.popleft()
            except IndexError:  # pragma: no cover - another thread took it in this very moment
                return
            if feed.visits == 0:
                self.end_unused(feed)
            elif not self._runtime.loop.running:
                self._dropped.append((feed, place))  # it lingers from when the lifespan starts
            else:
                timers, linger = self._runtime.timers, self._settings.linger
                dropped = Linger(feed, timers, linger, self.end_unused, partial(_is_away, place))
                self._runtime.loop.run(dropped.begin)

    def _check_name(self, place: Place, name: str | None) -> None:
        if name is not None:
            self.reserved.check(
                place.prefix + (check_own_name if place.prefix else check_name)(name)
            )

    def _open(
        self, kind: Kind, place: Place, source: Source[Any] | None, options: Options
    ) -> Channel[Any]:
        type_, size = options.type, options.size
        if size < 1:
            raise ValueError(f"expected size to be a number of messages, at least 1, got {size!r}")
        if type_ is None and callable(source):
            type_ = item_type(source)
        encode = make_encode(type_)
        iterator = self._open_source(source)
        try:
            feed = self.make_feed(kind, place, options)
        except Exception:
            if iterator is not None:  # it is ours by now
                self._runtime.background.start(partial(close_source, iterator))
            raise
        if iterator is not None:
            self._read(feed, iterator, encode)
        return self._make_channel(feed, place, options.name, encode)

    def _make_channel(
        self, feed: Feed, place: Place, name: str | None, encode: Encode
    ) -> Channel[Any]:
        channel: Channel[Any] = Channel(self, feed, place, name, encode)
        if name is None:
            weakref.finalize(channel, self._drop, feed, place).atexit = False
        return channel

    def _read(self, feed: Feed, source: AsyncIterator[Any], encode: Encode) -> None:
        demand = self.make_demand(feed) if feed.kind is Kind.UNLIMITED else None
        pump = Pump(
            feed,
            source,
            publish=lambda value: self.publish(feed, encode(feed.name, value)),
            ended=partial(self.end, feed),
            demand=demand,
            runtime=self._runtime,
        )
        feed.stop = pump.stop
        if self._stopping:
            self.end(feed, "ended", keep=False)
        self._runtime.background.start(pump.run)

    def _drop(self, feed: Feed, place: Place) -> None:
        self._dropped.append((feed, place))
        self._runtime.loop.run_soon(self.collect)

    def _open_source(self, source: Source[Any] | None) -> AsyncIterator[Any] | None:
        if source is None:
            return None
        made = source() if callable(source) and not isinstance(source, AsyncIterable) else source
        if not isinstance(made, AsyncIterable):
            raise TypeError(
                "expected a source to be an async iterator, or a function without parameters that "
                f"makes one, got {type(source).__name__}"
            )
        iterator = aiter(made)
        with self._lock:
            known = self._sources.get(id(iterator))
            with suppress(TypeError):  # a class without weak references, which are rare
                self._sources[id(iterator)] = iterator
        if known is not None:
            raise ValueError(
                "expected a source that no other channel was given, got "
                f"{type(iterator).__name__} for the second time, and an iterator can be read once "
                "only: pass the function that makes it, `create(prices)` instead of "
                "`create(prices())`, or let all clients read one channel of the site"
            )
        return iterator


def _is_away(place: Place) -> bool:
    """Tell whether a channel's only reader is a tab without a connection right now."""
    return isinstance(place.scope, ClientProcess) and not place.scope.connections
