"""Channels and the registry of their names.

Owns which names live, how many may, and when a channel that nobody holds is reclaimed.
Must not know transports, requests or the wire.

Divergences from `Ocsigen_comet.Channels`:

1. A named channel lives until it is closed, whether or not somebody keeps the `Channel`;
   CPython would reclaim a dropped result at once, where OCaml took its time.
2. An unnamed one that had listeners is reclaimed at the earliest `linger` seconds after the last.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .delivery import Delivery, Observation
from .errors import MessageTooLarge, NonUniqueChannelName, TooManyVirtualChannels
from .fanout import Fanout, Feed
from .history import History
from .names import check_name, fresh_name
from .settings import Settings
from .timers import Timer, Timers

__all__ = ["Channel", "Channels"]

T = TypeVar("T")


class Channel(Generic[T]):
    """A named, ordered stream of messages from the server to its clients. Made by `create`.

    An unnamed channel lives as long as somebody keeps this object, or listens. Thread-safe.
    """

    __slots__ = ("__weakref__", "_channels", "_encode", "_feed", "name")

    def __init__(
        self, channels: Channels, feed: Feed, name: str | None, encode: Callable[[T], bytes]
    ) -> None:
        self.name: str | None = name  # as declared; None for one that was given an identifier only
        self._channels = channels
        self._feed = feed
        self._encode = encode

    def __repr__(self) -> str:
        state = f"listeners={self.listeners}" if self._feed.closed is None else self._feed.closed
        return f"<Channel {self.id!r} {state}>"

    @property
    def id(self) -> str:
        """The identifier that clients register with: the name, or 144 random bits."""
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
            TypeError: The value is not of the channel's type.
            ValueError: The value cannot be encoded.
            MessageTooLarge: It is over `Settings.message_limit` bytes as JSON.
            ChannelClosed: The channel has ended.
        """
        return self._channels.publish(self._feed, self._encode(value))

    write = publish
    """`publish` by the name it has in `Ocsigen_comet.Channels`."""

    def close(self) -> None:
        """End the channel: listeners get what remains and are told. Idempotent, thread-safe.

        Its name is free at once.
        """
        self._channels.close(self._feed)


class Channels:
    """The live channels by name, and the low-level way to make one: `create`. Thread-safe.

    Args:
        settings: Bounds, and how long a forgotten channel lingers.
        fanout: Where messages go.
        observation: What deliveries need.

    Source: `Ocsigen_comet.Channels`.
    """

    def __init__(self, settings: Settings, fanout: Fanout, observation: Observation) -> None:
        self._settings = settings
        self._fanout = fanout
        self._observation = observation
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}
        # Feeds whose Channel was garbage-collected. A finalizer may run anywhere, even while this
        # very thread holds the lock, so it only appends here.
        self._dropped: deque[Feed] = deque()

    def __len__(self) -> int:
        self._collect()
        return len(self._feeds)

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
        settings = self._settings
        history = History(size=settings.history_size, max_bytes=settings.history_bytes)
        feed = Feed(fresh_name() if name is None else check_name(name), history)
        self._add(feed)
        channel = Channel(self, feed, name, encode_text)
        if name is None:
            weakref.finalize(channel, self._drop, feed).atexit = False
        return channel

    def find(self, name: str) -> Feed | None:
        """Return the feed of a live channel."""
        return self._feeds.get(name)

    def publish(self, feed: Feed, data: bytes) -> Delivery:
        """Publish encoded data on a feed, see `Channel.publish`."""
        if len(data) > self._settings.message_limit:
            raise MessageTooLarge(feed.name, self._settings.message_limit, len(data))
        return Delivery(self._observation, feed, self._fanout.publish(feed, data))

    def close(self, feed: Feed) -> None:
        """End a feed and free its name, see `Channel.close`."""
        with self._lock:
            if self._feeds.get(feed.name) is feed:
                del self._feeds[feed.name]
        self._fanout.close(feed, "ended")

    def _add(self, feed: Feed) -> None:
        self._collect()
        limit = self._settings.max_virtual_channels
        with self._lock:
            if feed.name in self._feeds:
                raise NonUniqueChannelName(feed.name)
            if limit is not None and len(self._feeds) >= limit:
                raise TooManyVirtualChannels(limit)
            self._feeds[feed.name] = feed

    def _drop(self, feed: Feed) -> None:
        self._dropped.append(feed)
        self._observation.loop.run_soon(self._collect)

    def _collect(self) -> None:
        """Reclaim the dropped channels that nobody uses; let the others linger."""
        while True:
            try:
                feed = self._dropped.popleft()
            except IndexError:
                return
            if feed.visits == 0 or not self._observation.loop.running:
                self.close(feed)
            else:
                linger = _Linger(self, feed, self._observation.timers, self._settings.linger)
                self._observation.loop.run(linger.begin)


class _Linger(Timer):
    """A dropped channel that had listeners: closed after a whole `linger` without any."""

    __slots__ = ("_channels", "_feed", "_linger", "_timers", "_visits")

    def __init__(self, channels: Channels, feed: Feed, timers: Timers, linger: float) -> None:
        super().__init__()
        self._channels = channels
        self._feed = feed
        self._timers = timers
        self._linger = linger
        self._visits = -1

    def begin(self) -> None:
        """Wait for another `linger` seconds."""
        self._visits = self._feed.visits
        self._timers.start(self, self._linger)

    def expire(self) -> None:
        """Close the channel if nobody came and nobody is there."""
        if self._feed.listeners or self._feed.visits != self._visits:
            self.begin()
        elif self._feed.closed is None:
            self._channels.close(self._feed)


def encode_text(text: str) -> bytes:
    """Encode a text as JSON.

    Raises:
        TypeError: It is not a text.
        ValueError: It has a lone surrogate, so it is not Unicode text.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a text (str), got {type(text).__name__}")
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected Unicode text, got a lone surrogate at index {error.start - 1}"
        ) from error
