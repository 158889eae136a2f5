"""Making channels: the calls of `Comet` that create one where they are called."""

from __future__ import annotations

import builtins
import re
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from asgi_comet.channels.channels import Channel, ExternalChannel, Options, Source
from asgi_comet.channels.directory import Place
from asgi_comet.channels.feed import Authorize
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.scope import SITE, Scope
from asgi_comet.channels.source import check_ahead
from asgi_comet.core.names import check_name
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub

__all__ = ["Making"]

T = TypeVar("T")

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Making:
    """Makes channels."""

    _hub: Hub

    # What a type checker knows: the type given by `type=`, else that of the source's values.

    @overload
    def create(
        self,
        source: Source[Any] | None = None,
        *,
        type: builtins.type[T],
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        size: int | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[T]: ...

    @overload
    def create(
        self,
        source: Source[T],
        *,
        type: None = None,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        size: int | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[T]: ...

    @overload
    def create(
        self,
        source: Source[Any] | None = None,
        *,
        type: Any = None,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        size: int | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[Any]: ...

    def create(
        self,
        source: Source[Any] | None = None,
        *,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        size: int | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Channel[Any]:
        """Make a channel that reads its source as soon as values come.

        Thread-safe; also before the lifespan runs, with which the source begins to be read.

        Args:
            source: An async iterator, or a function that makes one; it is closed in the end,
                whatever happens. Without one the channel is written with `publish`.
            scope: `SITE`: all who know the name read one history. A client process, by default the
                current one: only that tab reads it, and if it does not, the channel is full when a
                message that was never sent would have to go.
            name: How clients know it, without the `~` of a process channel; by default an
                identifier of 144 random bits. An unnamed channel is reclaimed when neither the
                application nor a client holds it.
            size: How many messages it holds; by default `Settings.history_size`.
            type: The type of its values, anything pydantic knows; by default that of the function
                `source`, or else any value.
            authorize: Called with the connection: tells whether somebody may read it, sync or
                async. Asked at each subscription and each resume; `None` is everyone. Only at the
                site: a process channel has one reader.

        Raises:
            NoClientProcess: There is no current one.
            ProcessClosed: The client process has closed.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: A live channel has it, or it is declared.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
            ValueError: `size` is less than 1, `authorize` is for a process channel, or another
                channel was given the same iterator.
            TypeError: `source` is no async iterator, pydantic does not know `type`, or `authorize`
                is no function.

        Source: `Eliom_comet.Channel.create`.
        """
        if size is None:
            size = self._hub.settings.history_size
        if scope is SITE:
            kind, place = Kind.SITE, self._hub.channels.site
        else:
            if authorize is not None:
                raise ValueError(
                    "expected authorize for a channel of the site only, scope=SITE: a process "
                    "channel is read by its own client process"
                )
            kind, place = Kind.PROCESS, self._place(scope, "did you mean scope=SITE? ")
        _check_authorize(authorize)
        options = Options(name=name, size=size, type=type, authorize=authorize)
        return self._hub.channels.make(kind, place, source, options)

    @overload
    def create_unlimited(
        self,
        source: Source[Any],
        *,
        type: builtins.type[T],
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        ahead: int = 1,
    ) -> Channel[T]: ...

    @overload
    def create_unlimited(
        self,
        source: Source[T],
        *,
        type: None = None,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        ahead: int = 1,
    ) -> Channel[T]: ...

    @overload
    def create_unlimited(
        self,
        source: Source[Any],
        *,
        type: Any = None,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        ahead: int = 1,
    ) -> Channel[Any]: ...

    def create_unlimited(
        self,
        source: Source[Any],
        *,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        ahead: int = 1,
    ) -> Channel[Any]:
        """Make a channel of a client process that reads its source only while the client asks.

        The source is never read further than `ahead` messages beyond what the client has
        acknowledged, so the channel is never full and no value is lost: the source waits. What the
        source itself keeps meanwhile is the caller's risk. For the rest see `create`.

        Args:
            source: An async iterator, or a function that makes one.
            scope: The client process, by default the current one.
            name: How clients know it, without the `~`.
            type: The type of its values.
            ahead: How many messages to read before the client acknowledges them, at least 1. With
                1 a client gets one value per round trip; more is faster over a slow network. All
                of them together are held within `Settings.history_bytes`.

        Raises:
            ValueError: `ahead` is less than 1.

        Source: `Eliom_comet.Channel.create_unlimited`.
        """
        if source is None:
            raise TypeError("expected a source to read on demand, got None")
        check_ahead(ahead)
        place = self._place(scope)
        options = Options(name=name, size=ahead, type=type)
        return self._hub.channels.make(Kind.UNLIMITED, place, source, options)

    @overload
    def create_newest(
        self,
        source: Source[Any] | None = None,
        *,
        type: builtins.type[T],
        name: str | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[T]: ...

    @overload
    def create_newest(
        self,
        source: Source[T],
        *,
        type: None = None,
        name: str | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[T]: ...

    @overload
    def create_newest(
        self,
        source: Source[Any] | None = None,
        *,
        type: Any = None,
        name: str | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[Any]: ...

    def create_newest(
        self,
        source: Source[Any] | None = None,
        *,
        name: str | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Channel[Any]:
        """Make a site channel of which clients get only the last message, otherwise as `create`.

        Source: `Eliom_comet.Channel.create_newest`.
        """
        site = self._hub.channels.site
        _check_authorize(authorize)
        options = Options(name=name, size=1, type=type, authorize=authorize)
        return self._hub.channels.make(Kind.NEWEST, site, source, options)

    def external_channel(
        self, *, prefix: str, name: str, history: int = 1, newest: bool = False
    ) -> ExternalChannel:
        """Refer to a channel of another server that speaks `comet.v1`; clients connect there.

        That server decides who may: its `allowed_origins` must have this one's origin.

        Args:
            prefix: The URL where its comet is mounted, like `https://live.example.com/comet`; or
                the path, like `/live/comet`, where a proxy serves it on the same host as the page.
            name: The channel's name there.
            history: With how many of the last messages clients begin.
            newest: Whether it is a newest channel, of which there is one at most.

        Raises:
            InvalidName: No channel has that name.
            ValueError: `prefix` is no such URL or path, or `history` is negative.

        Source: `Eliom_comet.Channel.external_channel`.
        """
        _check_external(prefix)
        if history < 0:
            raise ValueError(f"expected history to be at least 0, got {history}")
        return ExternalChannel(prefix, check_name(name), f"last:{1 if newest else history}")

    def _place(self, scope: Scope | ClientProcess | None, advice: str = "") -> Place:
        if scope is SITE:
            raise ValueError("expected a client process as scope, got SITE")
        if isinstance(scope, ClientProcess):
            process = scope
        else:
            process = self._hub.visits.current(advice, instead="write scope=process").process()
        process.check_open()
        return process.place


def _check_external(prefix: str) -> None:
    parts = urlsplit(prefix)
    is_url = parts.scheme in ("http", "https") and parts.netloc and not prefix.endswith("/")
    if not is_url and not _PATH.fullmatch(prefix):
        raise ValueError(
            "expected prefix like 'https://live.example.com/comet', or a path like '/live/comet', "
            f"got {prefix!r}"
        )


def _check_authorize(authorize: Authorize | None) -> None:
    if authorize is not None and not callable(authorize):
        raise TypeError(f"expected authorize to be a function, got {type(authorize).__name__}")
