"""Channels of all kinds, and the registry that makes, counts and ends them.

Owns how many channels live, and when one that nobody holds is reclaimed, or one that ended is
forgotten. Must not know transports, requests, sessions or the wire.

Divergences from `Ocsigen_comet.Channels` and `Eliom_comet.Channel`:

1. A named channel lives until its source ends or it is closed, whether or not somebody keeps the
   `Channel`; CPython would reclaim a dropped result at once, where OCaml took its time.
2. An unnamed one that had listeners or references is reclaimed at the earliest `linger` seconds
   after the last.
3. Whoever missed messages is told so by positions, not by the absence of an answer.
"""

from __future__ import annotations

import json
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from .brokers.base import Broker
from .delivery import Delivery
from .directory import Place
from .encoding import Encode, item_type, make_encode
from .errors import ChannelFull, MessageTooLarge, TooManyVirtualChannels
from .fanout import Fanout
from .feeds import Feed, Kind
from .history import History
from .lingering import Forget, Linger
from .names import check_name, fresh_name
from .runtime import Runtime
from .settings import Settings
from .sources import Demand, Pump, close_source

__all__ = ["Channel", "Channels", "ExternalChannel", "Source"]

T = TypeVar("T")

Source = AsyncIterator[T] | Callable[[], AsyncIterator[T]]
"""An async iterator, or a function without parameters that makes one; its annotation then tells
the type of the channel."""


class Channel(Generic[T]):
    """A named, ordered stream of messages from the server to its clients. Made by `create`.

    An unnamed site channel lives as long as somebody keeps this object, or listens. Thread-safe.
    """

    __slots__ = ("__weakref__", "_channels", "_encode", "_feed", "_place", "name")

    def __init__(
        self, channels: Channels, feed: Feed, place: Place, name: str | None, encode: Encode
    ) -> None:
        self.name: str | None = name  # as declared; None for one that was given an identifier only
        self._channels = channels
        self._feed = feed
        self._place = place
        self._encode = encode

    def __repr__(self) -> str:
        state = f"listeners={self.listeners}" if self._feed.closed is None else self._feed.closed
        return f"<Channel {self.id!r} {state}>"

    @property
    def id(self) -> str:
        """The identifier that clients subscribe to: the name, or 144 random bits.

        Those of a client process begin with `~`.
        """
        return self._feed.name

    @property
    def listeners(self) -> int:
        """How many client connections are open on the channel right now, as the server knows.

        A client that vanished without a word still counts until its connection breaks; the
        outcome of a write tells.
        """
        return len(self._feed.listeners)

    def publish(self, value: T) -> Delivery:
        """Send a value to everyone who listens, and keep it in the history.

        Values published by one caller arrive in that order. Thread-safe; never waits.

        Args:
            value: What to send.

        Returns:
            The delivery: `await` it for the outcome, or drop it.

        Raises:
            InvalidMessage: The value does not fit the channel's type, or has no JSON form.
            MessageTooLarge: It is over `Settings.message_limit` bytes as JSON.
            ChannelClosed: The channel has ended.
            ChannelFull: It belongs to a client process that did not ask for what it holds.
            TypeError: It reads its source on demand, so nothing else may come between.
        """
        if self._feed.kind is Kind.UNLIMITED:
            raise TypeError(
                f"expected a channel that may be published on, got {self.id!r}, which reads its "
                "source as its client asks"
            )
        return self._channels.publish(self._feed, self._encode(self._feed.name, value))

    write = publish
    """`publish` by the name it has in `Ocsigen_comet.Channels`."""

    def reference(self) -> dict[str, str]:
        """Tell a client where to subscribe and from which position: nothing is lost in between.

        Returns:
            `{"url": "/comet/p/TOKEN", "channel": "~inbox", "position": "k3x9Qp.0"}`, for JSON.
            In a request the URL includes the application's `root_path`. The position is the end of
            a site channel's history, the place before the last message of a newest one, and the
            first message that a client process has not acknowledged.
        """
        feed = self._feed
        with feed.lock:
            feed.visits += 1
            history = feed.history
            first = history.first - 1
            offset = {Kind.SITE: history.top, Kind.NEWEST: first}.get(feed.kind, first)
        position = str(feed.position(offset))
        return {"url": self._place.url(), "channel": feed.name, "position": position}

    def close(self) -> None:
        """End the channel: listeners get what remains and are told. Idempotent, thread-safe.

        Its name is free at once; what it holds can be read for another `Settings.linger` seconds.
        """
        self._channels.end(self._feed, "ended")


@dataclass(frozen=True, slots=True)
class ExternalChannel:
    """A channel of another server, which clients connect to there.

    Attributes:
        prefix: The URL where that server's comet is mounted.
        name: The channel's name there.
        start: Where clients begin: `last:N`.
    """

    prefix: str
    name: str
    start: str

    def reference(self) -> dict[str, str]:
        """Tell a client where to subscribe, as `Channel.reference` does."""
        return {"url": self.prefix, "channel": self.name, "position": self.start}


class Channels:
    """All channels, and the low-level way to make one: `create`. Thread-safe.

    Args:
        settings: Bounds, and how long a forgotten channel lingers.
        site: Where site channels live.
        broker: Where messages go.
        fanout: Who is told when a channel ends.
        runtime: Where sources are read and deadlines pass.

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
        self._settings = settings
        self._broker = broker
        self._fanout = fanout
        self._runtime = runtime
        self._lock = site.directory.lock
        self._live = 0
        self._stopping = False
        # Feeds whose Channel was garbage-collected. A finalizer may run anywhere, even while this
        # very thread holds the lock, so it only appends here.
        self._dropped: deque[Feed] = deque()

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
            NonUniqueChannelName: A live channel has it.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        feed = self._make_feed(Kind.SITE, self.site, name, self._settings.history_size)
        return self._make_channel(feed, self.site, name, encode_text)

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
        """Make a channel of any kind, see `Comet.create` and its sisters."""
        if size < 1:
            raise ValueError(f"expected size to be a number of messages, at least 1, got {size!r}")
        if type_ is None and callable(source):
            type_ = item_type(source)
        encode = make_encode(type_)
        iterator = _open_source(source)
        try:
            feed = self._make_feed(kind, place, name, size)
        except Exception:
            if iterator is not None:  # it is ours by now
                self._runtime.background.start(partial(close_source, iterator))
            raise
        if iterator is not None:
            self._read(feed, iterator, encode)
        return self._make_channel(feed, place, name, encode)

    def find(self, name: str) -> Feed | None:
        """Return the feed of a site channel that lives, or can still be read."""
        return self.site.directory.find(name)

    def publish(self, feed: Feed, data: bytes) -> Delivery:
        """Publish encoded data on a feed, see `Channel.publish`."""
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        try:
            stored = self._broker.append(feed, data)
        except ChannelFull:
            self.end(feed, "full")
            raise
        return Delivery(self._runtime, feed, stored, self._settings.timeout)

    def end(self, feed: Feed, reason: str, *, keep: bool = True) -> None:
        """End a feed and free its name, see `Channel.close`. Idempotent, thread-safe.

        Args:
            feed: The feed.
            reason: `ended`, `failed` or `full`.
            keep: Whether what it holds can be read for `linger` seconds; a full one answers so for
                as long as its client process lives.
        """
        directory = feed.directory
        if directory.end(feed, keep=keep):
            with self._lock:
                self._live -= 1
            if not keep:
                directory.forget(feed)
            elif reason != "full":
                forget = Forget(feed, self._runtime.timers, self._settings.linger)
                self._runtime.background.start(forget.begin)  # from when the lifespan runs
        self._fanout.close(feed, reason)
        if feed.stop is not None:
            feed.stop()

    def begin(self) -> None:
        """The lifespan starts: sources are read from now on."""
        self._stopping = False
        self.collect()

    def stop(self) -> None:
        """Stop all sources of the site, which ends their channels: the server stops.

        A source that comes later is closed without being read.
        """
        self._stopping = True
        for feed in self.site.directory.feeds():
            if feed.stop is not None:
                self.end(feed, "ended", keep=False)

    def end_unused(self, feed: Feed) -> None:
        """End a channel that nobody holds or uses; nobody could read what remains."""
        self.end(feed, "ended", keep=False)

    def collect(self) -> None:
        """Reclaim the dropped channels that nobody uses; let the others linger."""
        for _ in range(len(self._dropped)):
            try:
                feed = self._dropped.popleft()
            except IndexError:  # pragma: no cover - another thread took it in this very moment
                return
            if feed.visits == 0:
                self.end_unused(feed)
            elif not self._runtime.loop.running:
                self._dropped.append(feed)  # it lingers from when the lifespan starts
            else:
                linger = Linger(feed, self._runtime.timers, self._settings.linger, self.end_unused)
                self._runtime.loop.run(linger.begin)

    def _make_feed(self, kind: Kind, place: Place, name: str | None, size: int) -> Feed:
        self.collect()
        own = fresh_name() if name is None else check_name(name)
        history = History(
            size=1 if kind is Kind.NEWEST else size, max_bytes=self._settings.history_bytes
        )
        feed = Feed(place.prefix + own, kind, history, place.directory)
        limit = self._settings.max_virtual_channels
        with self._lock:
            if limit is not None and self._live >= limit:
                raise TooManyVirtualChannels(limit)
            waiting = place.directory.add(feed)
            self._live += 1
        if waiting:
            self._runtime.loop.run(lambda: self._fanout.join(waiting, feed))
        return feed

    def _make_channel(
        self, feed: Feed, place: Place, name: str | None, encode: Encode
    ) -> Channel[Any]:
        channel: Channel[Any] = Channel(self, feed, place, name, encode)
        if name is None and place is self.site:
            weakref.finalize(channel, self._drop, feed).atexit = False
        return channel

    def _read(self, feed: Feed, source: AsyncIterator[Any], encode: Encode) -> None:
        demand = Demand() if feed.kind is Kind.UNLIMITED else None
        pump = Pump(
            feed,
            source,
            publish=lambda value: self.publish(feed, encode(feed.name, value)),
            ended=partial(self.end, feed),
            demand=demand,
            runtime=self._runtime,
        )
        feed.stop = pump.stop
        if demand is not None:
            feed.want = demand.ask
            self._runtime.loop.run(lambda: self._want_first(feed))
        if self._stopping:
            self.end(feed, "ended", keep=False)
        self._runtime.background.start(pump.run)

    def _want_first(self, feed: Feed) -> None:
        if feed.listeners:  # who waited for it to be made
            self._broker.want(feed, 1)

    def _drop(self, feed: Feed) -> None:
        self._dropped.append(feed)
        self._runtime.loop.run_soon(self.collect)


def _open_source(source: Source[Any] | None) -> AsyncIterator[Any] | None:
    if source is None:
        return None
    made = source() if callable(source) and not isinstance(source, AsyncIterable) else source
    if isinstance(made, AsyncIterable):
        return aiter(made)
    raise TypeError(
        "expected a source to be an async iterator, or a function without parameters that makes "
        f"one, got {type(source).__name__}"
    )


def encode_text(name: str, text: str) -> bytes:
    """Encode a text as JSON.

    Raises:
        TypeError: It is not a text.
        ValueError: It has a lone surrogate, so it is not Unicode text.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a text (str) for channel {name!r}, got {type(text).__name__}")
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected Unicode text for channel {name!r}, "
            f"got a lone surrogate at index {error.start - 1}"
        ) from error
