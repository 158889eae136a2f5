"""Making channels: the calls of `Comet` that create one where they are called."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from asgi_comet.channels import Channel, ExternalChannel, Options, Source
from asgi_comet.directory import Place
from asgi_comet.feeds import Authorize, Kind
from asgi_comet.hub import Hub
from asgi_comet.names import check_name
from asgi_comet.processes import ClientProcess
from asgi_comet.scopes import SITE, Scope

__all__ = ["Making"]


class Making:
    """Makes channels."""

    _hub: Hub

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
                identifier of 144 random bits. An unnamed site channel is reclaimed when nobody
                holds it.
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
            ValueError: `size` is less than 1, or `authorize` is for a process channel.
            TypeError: `source` is no async iterator, pydantic does not know `type`, or `authorize`
                is no function.

        Source: `Eliom_comet.Channel.create`; semantics.md, "Kinds of channel".
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
            kind, place = Kind.PROCESS, self._place(scope)
        _check_authorize(authorize)
        options = Options(name=name, size=size, type=type, authorize=authorize)
        return self._hub.channels.make(kind, place, source, options)

    def create_unlimited(
        self,
        source: Source[Any],
        *,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
    ) -> Channel[Any]:
        """Make a channel of a client process that reads its source only while the client asks.

        It is one message ahead of what the client took, and never full: the source waits. What the
        source itself keeps meanwhile is the caller's risk. For the rest see `create`.

        Source: `Eliom_comet.Channel.create_unlimited`.
        """
        if source is None:
            raise TypeError("expected a source to read on demand, got None")
        place = self._place(scope)
        size = self._hub.settings.history_size
        options = Options(name=name, size=size, type=type)
        return self._hub.channels.make(Kind.UNLIMITED, place, source, options)

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
            prefix: The URL where its comet is mounted, like `https://live.example.com/comet`.
            name: The channel's name there.
            history: With how many of the last messages clients begin.
            newest: Whether it is a newest channel, of which there is one at most.

        Raises:
            InvalidName: No channel has that name.
            ValueError: `prefix` is no such URL, or `history` is negative.

        Source: `Eliom_comet.Channel.external_channel`.
        """
        parts = urlsplit(prefix)
        if parts.scheme not in ("http", "https") or not parts.netloc or prefix.endswith("/"):
            raise ValueError(
                f"expected prefix like 'https://live.example.com/comet', got {prefix!r}"
            )
        if history < 0:
            raise ValueError(f"expected history to be at least 0, got {history}")
        return ExternalChannel(prefix, check_name(name), f"last:{1 if newest else history}")

    def _place(self, scope: Scope | ClientProcess | None) -> Place:
        if scope is SITE:
            raise ValueError("expected a client process as scope, got SITE")
        process = (
            scope if isinstance(scope, ClientProcess) else self._hub.visits.current().process()
        )
        process.check_open()
        return process.place


def _check_authorize(authorize: Authorize | None) -> None:
    if authorize is not None and not callable(authorize):
        raise TypeError(f"expected authorize to be a function, got {type(authorize).__name__}")
