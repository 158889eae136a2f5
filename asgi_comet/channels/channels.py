"""The making of channels of all kinds.

Must not know transports, requests, sessions or the wire.

Divergences from `Ocsigen_comet.Channels` and `Eliom_comet.Channel`:

1. A named channel lives until its source ends or the application closes it, even if the application
drops the `Channel`: CPython reclaims a dropped object at once, OCaml later.
2. An unnamed channel that had listeners or references is reclaimed at the earliest `linger` seconds
after the last one. A disconnected tab keeps its channels until it returns or closes.
3. A client detects missed messages by positions, not by the absence of an answer.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from asgi_comet.channels.adopting import Adopting
from asgi_comet.channels.annotations import item_type
from asgi_comet.channels.channel import Channel, ExternalChannel
from asgi_comet.channels.directory import Place
from asgi_comet.channels.encoding import Encode, make_encode
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.options import Options
from asgi_comet.channels.right import Right
from asgi_comet.channels.scope import Tab
from asgi_comet.channels.source import Pump, close_source
from asgi_comet.core.aged import check_max_age
from asgi_comet.core.history import check_count
from asgi_comet.core.names import check_name, check_own_name
from asgi_comet.errors import NonUniqueChannelName

__all__ = ["AllChannels", "Channel", "Channels", "ExternalChannel", "Options", "Source"]

T = TypeVar("T")

Source = AsyncIterator[T] | Callable[[], AsyncIterator[T]]
"""An async iterator, or a function without parameters that makes one.

The annotation of the function then gives the type of the channel.
"""


class AllChannels(Adopting):
    """All channels, and how to make one of any kind. Thread-safe; arguments as `Registry`."""

    def make(
        self, kind: Kind, place: Place, source: Source[Any] | None, options: Options
    ) -> Channel[Any]:
        """Make a channel of any kind for the application, see `Comet.create`."""
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
        """Make a channel for the package itself, whose name may be reserved or declared.

        A channel of a client process that other workers have is adopted.
        """
        options = Options(name=name, size=size, type=type_)
        try:
            return self._open(kind, place, source, options, family=False)
        except NonUniqueChannelName:
            feed = place.directory.find(f"{place.prefix}{name}")
            if feed is None or feed.owner is None or not feed.adopt or feed.closed is not None:
                raise
            return self._make_channel(feed, place, name, make_encode(type_))

    def _check_name(self, place: Place, name: str | None) -> None:
        if name is not None:
            self.reserved.check(
                place.prefix + (check_own_name if place.prefix else check_name)(name)
            )

    def _open(
        self,
        kind: Kind,
        place: Place,
        source: Source[Any] | None,
        options: Options,
        *,
        family: bool | None = None,
    ) -> Channel[Any]:
        type_, size = options.type, options.size
        check_count("size", size)
        check_max_age(options.max_age)
        if type_ is None and callable(source):
            type_ = item_type(source)
        encode = make_encode(type_)
        iterator = self._open_source(source)
        try:
            feed = self.make_feed(kind, place, options, sourced=source is not None, family=family)
        except Exception:
            if iterator is not None:  # this function has to close it
                self._runtime.background.start(partial(close_source, iterator))
            raise
        if iterator is not None:
            self._read(feed, iterator, encode)
            if isinstance(place.scope, Tab):
                place.scope.hold()  # or this worker is not told to close the source
        return self._make_channel(feed, place, options.name, encode)

    def _make_channel(
        self, feed: Feed, place: Place, name: str | None, encode: Encode
    ) -> Channel[Any]:
        channel: Channel[Any] = Channel(self, feed, place, name, encode)
        if name is None:
            weakref.finalize(channel, self.dropped.add, feed, place).atexit = False
        return channel

    def _read(self, feed: Feed, source: AsyncIterator[Any], encode: Encode) -> None:
        demand = self.make_demand(feed) if feed.kind.on_demand else None
        pump = Pump(
            feed,
            source,
            publish=lambda value: self.appending.append_value(
                feed.latest, encode(feed.name, value)
            ),
            ended=lambda reason: self._source_ended(feed.latest, right, reason),
            demand=demand,
            runtime=self._runtime,
        )
        right = feed.right = Right(pump.stop)

        def stop() -> None:
            self._runtime.loop.run(right.cancel)
            pump.stop()

        async def run() -> None:
            await self.sharing.acquire(feed, right)
            await pump.run()
            self.sharing.release(feed, clean=pump.clean)

        feed.stop = stop
        if self._stopping:
            self.ending.end(feed, "ended", keep=False)
        self._runtime.background.start(run)

    def _source_ended(self, feed: Feed, right: Right, reason: str) -> None:
        if not (right.taken and feed.adopt):  # else another worker reads a source of its own
            taken = right.taken
            self.ending.end(feed, "failed" if taken else reason, tell=not taken)

    def _open_source(self, source: Source[Any] | None) -> AsyncIterator[Any] | None:
        if source is None:
            return None
        if self.appending.publisher is not None:
            raise ValueError("expected no source: a process that only publishes reads none")
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


class Channels:
    """The low-level way to make a channel: `comet.channels`. Thread-safe.

    Args:
        channels: Where they live.
        size: How many messages a channel holds.

    Source: `Ocsigen_comet.Channels`.
    """

    __slots__ = ("_channels", "_size")

    def __init__(self, channels: AllChannels, size: int) -> None:
        self._channels = channels
        self._size = size

    def create(self, name: str | None = None, *, max_age: float | None = None) -> Channel[str]:
        """Make a writable site channel of text.

        Args:
            name: The identifier; by default 144 random bits, which only clients can know that the
                application gave the identifier to.
            max_age: How many seconds the channel holds a message; `None` is no bound.

        Returns:
            The channel. Keep an unnamed channel: the server reclaims it once the application and
            the clients hold it no longer.

        Raises:
            InvalidName: No channel may have that name.
            NonUniqueChannelName: A live channel has it, or it is declared.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
            ValueError: `max_age` is not a positive, finite number.
        """
        options = Options(name=name, size=self._size, max_age=max_age, type=str)
        return self._channels.make(Kind.SITE, self._channels.site, None, options)
