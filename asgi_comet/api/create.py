"""Creating channels: the methods of `Comet` that return a new channel."""

from __future__ import annotations

import builtins
import re
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from asgi_comet.channels.channels import Channel, ExternalChannel, Options, Source
from asgi_comet.channels.directory import Place
from asgi_comet.channels.feed import Authorize
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.scope import CLIENT_PROCESS, SITE, Scope
from asgi_comet.channels.source import check_ahead
from asgi_comet.core.names import check_name
from asgi_comet.identity.process import ClientProcess, client_of
from asgi_comet.node.build import Node

__all__ = ["Making"]

T = TypeVar("T")
G = TypeVar("G", bound=Authorize)

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Making:
    """The methods of `Comet` that create channels."""

    _node: Node

    def guard(self, function: G) -> G:
        """Let other workers know a function by its name, for `authorize`; a decorator.

        With a broker that joins several workers, `authorize` of a channel that is made while the
        server runs must be such a function: other workers read the channel, too, and the function
        itself cannot travel. The `authorize` of a declared channel needs no decorator.

        Args:
            function: A function of a module, called with the connection, sync or async; returns
                whether the client may read. Every worker decorates it by the same line of code.

        Returns:
            The function itself.

        Raises:
            TypeError: It is not a function of a module, or cannot be called with a connection.
            ValueError: There is another guard of the same module and name.
        """
        self._node.channels.guards.add(function)
        return function

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
        max_age: float | None = None,
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
        max_age: float | None = None,
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
        max_age: float | None = None,
        authorize: Authorize | None = None,
    ) -> Channel[Any]: ...

    def create(  # noqa: PLR0913 - independent options of one channel, each by name
        self,
        source: Source[Any] | None = None,
        *,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        size: int | None = None,
        max_age: float | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Channel[Any]:
        """Make a channel that reads its source as soon as values come.

        Thread-safe. The server reads the source as soon as the lifespan runs.

        Args:
            source: An async iterator, or a function that makes one. The server always closes the
                source in the end. Without a source, the application calls `publish`.
            scope: `SITE`: every client that knows the name reads one history. A client process, by
                default the current one: only that tab reads the channel. If the tab does not read,
                the channel is full once a new message would displace one that was never sent.
            name: The name that clients use, without the `~` of a process channel; by default an
                identifier of 144 random bits. An unnamed channel is reclaimed when neither the
                application nor a client holds it.
            size: How many messages the channel holds; by default `Settings.history_size`.
            max_age: How many seconds a channel of the site holds a message, beside `size`; `None`
                is no bound. A client that asks for an older message is told `full`.
            type: The type of the values, anything pydantic knows; by default the type annotated on
                the function `source`, or else any value.
            authorize: Called with the connection, sync or async; returns whether the client may
                read. Called at each subscription and each resume; `None` admits every client. Only
                for the site: a process channel has one reader. With several workers, a `guard`.

        Raises:
            NoClientProcess: There is no current client process.
            NotShared: The channel is for a client process, and the broker joins several workers.
            ProcessClosed: The client process has closed.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: A live channel has the name, or the name is declared.
            InvalidDeclaration: Other workers do not know `authorize`, see `guard`.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
            ValueError: `size` is less than 1, `max_age` is not a positive, finite number,
                `authorize` or `max_age` is for a process channel, or another channel was given the
                same iterator.
            TypeError: `source` is not an async iterator, pydantic does not know `type`, `size` is
                not a whole number, `authorize` is not a function, or `scope` is neither a scope nor
                a client process.

        Source: `Eliom_comet.Channel.create`.
        """
        if size is None:
            size = self._node.settings.history_size
        if scope is SITE:
            kind, place = Kind.SITE, self._node.channels.site
        else:
            _check_own(authorize, max_age)
            kind = Kind.PROCESS
            place = self._place("comet.create()", scope, "did you mean scope=SITE? ")
        _check_authorize(authorize)
        options = Options(name=name, size=size, max_age=max_age, type=type, authorize=authorize)
        return self._node.channels.make(kind, place, source, options)

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

        The server reads the source at most `ahead` messages beyond the last message that the client
        has acknowledged. So the channel is never full and no value is lost: the source waits. The
        source must bound the values that it keeps meanwhile. For the rest see `create`.

        Args:
            source: An async iterator, or a function that makes one.
            scope: The client process, by default the current one.
            name: The name that clients use, without the `~`.
            type: The type of the values.
            ahead: How many messages to read before the client acknowledges them, at least 1. With
                1, a client gets one value per round trip; more is faster over a slow network. The
                messages together take at most `Settings.history_bytes`.

        Raises:
            TypeError: `ahead` is not a whole number.
            ValueError: `ahead` is less than 1.

        Source: `Eliom_comet.Channel.create_unlimited`.
        """
        if source is None:
            raise TypeError("expected a source to read on demand, got None")
        check_ahead(ahead)
        place = self._place("comet.create_unlimited()", scope)
        options = Options(name=name, size=ahead, type=type)
        return self._node.channels.make(Kind.UNLIMITED, place, source, options)

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
        """Make a site channel whose clients get only the newest message; else as `create`.

        Source: `Eliom_comet.Channel.create_newest`.
        """
        site = self._node.channels.site
        _check_authorize(authorize)
        options = Options(name=name, size=1, type=type, authorize=authorize)
        return self._node.channels.make(Kind.NEWEST, site, source, options)

    def external_channel(
        self, *, prefix: str, name: str, history: int = 1, newest: bool = False
    ) -> ExternalChannel:
        """Refer to a channel of another server that speaks `comet.v1`; clients connect there.

        The other server decides which clients may read: its `allowed_origins` must contain the
        origin of this server.

        Args:
            prefix: The URL where the other server mounts comet, like
                `https://live.example.com/comet`; or a path, like `/live/comet`, if a proxy serves
                the other server on the same host as the page.
            name: The channel's name on the other server.
            history: With how many of the last messages clients begin.
            newest: Whether the channel is a newest channel, which holds one message at most.

        Raises:
            InvalidName: No channel can have that name.
            ValueError: `prefix` is not such a URL or path, or `history` is negative.

        Source: `Eliom_comet.Channel.external_channel`.
        """
        _check_external(prefix)
        if history < 0:
            raise ValueError(f"expected history to be at least 0, got {history}")
        return ExternalChannel(prefix, check_name(name), f"last:{1 if newest else history}")

    def _place(self, called: str, scope: Scope | ClientProcess | None, advice: str = "") -> Place:
        if scope is SITE:
            raise ValueError("expected a client process as scope, got SITE")
        self._node.requests.require_people(f"{called} with a client process as scope")
        if scope is None or scope is CLIENT_PROCESS:
            process = self._node.requests.current(advice, instead="write scope=process").process()
        else:
            process = client_of(scope)
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


def _check_own(authorize: Authorize | None, max_age: float | None) -> None:
    if authorize is not None:
        raise ValueError(
            "expected authorize for a channel of the site only, scope=SITE: a process "
            "channel is read by its own client process"
        )
    if max_age is not None:
        raise ValueError(
            "expected max_age for a channel of the site only, scope=SITE: a process channel drops "
            "no message that its client was never sent"
        )


def _check_authorize(authorize: Authorize | None) -> None:
    if authorize is not None and not callable(authorize):
        raise TypeError(f"expected authorize to be a function, got {type(authorize).__name__}")
