"""Declaring channels: the decorators of `Comet` that turn a function into a channel."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from starlette.requests import HTTPConnection

from asgi_comet._runtime.functions import misfit
from asgi_comet.channels.annotations import item_type
from asgi_comet.channels.encoding import Encode, make_encode
from asgi_comet.channels.feed import Authorize
from asgi_comet.channels.html import make_html
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.options import Options
from asgi_comet.channels.scope import CLIENT_PROCESS, SITE, Scope
from asgi_comet.channels.source import check_ahead
from asgi_comet.core.pattern import parse_pattern
from asgi_comet.declare.checks import check_continuing, check_once, check_options, check_own
from asgi_comet.declare.declared import Declaration, DeclaredChannel
from asgi_comet.declare.parameters import Words, check_process_source, check_source
from asgi_comet.errors import InvalidDeclaration, InvalidMessage, NonUniqueChannelName
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.protocol.sse import Html
from asgi_comet.settings import Settings

__all__ = ["Declaring"]

P = ParamSpec("P")
T = TypeVar("T")


class Declaring:
    """The methods of `Comet` that declare channels."""

    _node: Node

    def channel(  # noqa: PLR0913 - independent options of one channel, each by name
        self,
        name: str,
        *,
        scope: Scope = SITE,
        size: int | None = None,
        max_age: float | None = None,
        linger: float | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
        continues: bool = False,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel that publishes the values of a function as soon as they come.

        - `@comet.channel("ticker")`: a channel of the site. The server starts it with the
          application.
        - `@comet.channel("room:{room}")`: a family. A member starts with its first listener; all
          clients that subscribe to its name share it. The server stops a member `linger` seconds
          after its last listener and the last `publish`, whichever is later. `{word}` is one or
          more characters other than `:` and `/`. The function has a parameter for each word. If a
          word does not fit its type, or is another spelling of a value, the name belongs to no
          channel.
        - `@comet.channel("inbox", scope=CLIENT_PROCESS)`: the channel `~inbox` of each client
          process that subscribes to it, until the client process closes. The function gets the
          `ClientProcess`.

        If a source raises, the server starts it again after a random pause: at most 0.5 s at first,
        twice as long with each further failure, never over 30 s. This is another incarnation of the
        channel, so the server tells the readers `full`. If a source ends, the channel ends. The
        channel starts again with the application, or with the next first listener once its
        remaining messages are forgotten.

        Args:
            name: The name that clients use, without the `~` of a process channel.
            scope: `SITE` or `CLIENT_PROCESS`.
            size: How many messages the channel holds; by default `Settings.history_size`.
            max_age: How many seconds the channel holds a message, beside `size`; `None` is no
                bound. Not for a process channel.
            linger: How many seconds a member of a family lives without listeners, and how many
                seconds the messages of an ended channel can be read; by default `Settings.linger`.
            type: The type of the values, anything pydantic knows; by default the type annotated on
                the function, or else any value.
            authorize: Called with the connection, and the words of the name as keyword arguments,
                sync or async; returns whether the client may read. Called at each subscription and
                each resume; `None` admits every client. Not for a process channel, which has one
                reader.
            continues: Whether a source that is started again goes on where the channel stands, so
                that the readers miss nothing and are not told `full`. The function then has a
                parameter `after=None`: the newest `Message` of the channel, if there is one. Not
                for a process channel.

        Returns:
            A decorator of an async generator function.

        Raises:
            InvalidDeclaration: The declaration cannot work; the text says why.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: Another channel has the name.
            NotShared: The channel is for a client process, and the broker joins several workers.
        """
        if scope not in (SITE, CLIENT_PROCESS):
            reason = f"expected scope to be SITE or CLIENT_PROCESS, got {scope!r}"
            raise InvalidDeclaration(name, reason)
        kind = Kind.SITE if scope is SITE else Kind.PROCESS
        size = self._node.settings.history_size if size is None else size
        options = Options(size=size, max_age=max_age, linger=linger, type=type, authorize=authorize)
        if continues and scope is not SITE:
            reason = "expected continues for a channel of the site only, got a process channel"
            raise InvalidDeclaration(name, reason)
        return self._declare(name, kind, options, continues=continues)

    def newest(
        self,
        name: str,
        *,
        linger: float | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel, or a family, whose clients get only the newest message.

        The readers do not notice when the server starts a source again. For the rest see `channel`.
        """
        options = Options(size=1, linger=linger, type=type, authorize=authorize)
        return self._declare(name, Kind.NEWEST, options)

    def unlimited(
        self,
        name: str,
        *,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        ahead: int = 1,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel of each client process that is read only while its client asks.

        The server reads the source at most `ahead` messages beyond the last message that the client
        has acknowledged. For the rest see `channel`, with the scope `CLIENT_PROCESS`, and
        `create_unlimited`.

        Args:
            name: The name that clients use, without the `~`.
            type: The type of the values.
            ahead: How many messages to read before the client acknowledges them, at least 1.

        Raises:
            InvalidDeclaration: `ahead` is less than 1, or the declaration cannot work.
            NotShared: The broker shares channels only.
        """
        try:
            check_ahead(ahead)
        except (TypeError, ValueError) as error:
            raise InvalidDeclaration(name, str(error)) from None
        return self._declare(name, Kind.UNLIMITED, Options(size=ahead, type=type))

    # What a type checker knows: the words by the parameters of `authorize`, the values by `type`.

    @overload
    def family(
        self,
        pattern: str,
        *,
        type: builtins.type[T],
        authorize: Callable[Concatenate[HTTPConnection, P], Awaitable[bool] | bool],
        size: int | None = None,
        max_age: float | None = None,
        linger: float | None = None,
        render: Callable[[T], str] | None = None,
    ) -> DeclaredChannel[P, T]: ...

    @overload
    def family(
        self,
        pattern: str,
        *,
        type: Any = Any,
        authorize: Callable[Concatenate[HTTPConnection, P], Awaitable[bool] | bool],
        size: int | None = None,
        max_age: float | None = None,
        linger: float | None = None,
        render: Callable[[Any], str] | None = None,
    ) -> DeclaredChannel[P, Any]: ...

    @overload
    def family(
        self,
        pattern: str,
        *,
        type: builtins.type[T],
        authorize: None = None,
        size: int | None = None,
        max_age: float | None = None,
        linger: float | None = None,
        render: Callable[[T], str] | None = None,
    ) -> DeclaredChannel[..., T]: ...

    @overload
    def family(
        self,
        pattern: str,
        *,
        type: Any = Any,
        authorize: None = None,
        size: int | None = None,
        max_age: float | None = None,
        linger: float | None = None,
        render: Callable[[Any], str] | None = None,
    ) -> DeclaredChannel[..., Any]: ...

    def family(  # noqa: PLR0913 - as `channel`
        self,
        pattern: str,
        *,
        type: Any = Any,  # noqa: A002 - the word users know from pydantic
        size: int | None = None,
        max_age: float | None = None,
        linger: float | None = None,
        authorize: Authorize | None = None,
        render: Callable[[Any], str] | None = None,
    ) -> DeclaredChannel[..., Any]:
        """Declare a family of channels without sources: the application publishes.

        `rooms = comet.family("room:{room}", type=Said)`, and then
        `rooms.publish(Said(...), room="kitchen")` from anywhere. A member starts with its first
        listener or its first `publish`, and costs no task.

        Args:
            pattern: The name, with at least one `{word}`. A word has the type with which
                `authorize` annotates it, by default text; text also takes a number.
            type: The type of the values, anything pydantic knows; by default any value.
            size: How many messages a member holds; by default `Settings.history_size`.
            max_age: How many seconds a member holds a message, beside `size`; `None` is no bound.
            linger: How many seconds a member lives after its last listener and its last `publish`,
                whichever is later; by default `Settings.linger`. The messages of the member are
                gone then.
            authorize: As for `channel`.
            render: Makes the HTML of a value, for clients that ask for `format=text`, as htmx does.
                Escape texts that users wrote: use a template, or `markupsafe.escape`. All other
                clients get the value as JSON. `publish` calls `render` once per value, in the
                caller's thread. The server calls `render` again, in the event loop, for a value
                that a client reads much later, so `render` must be fast. The result has at most
                `Settings.message_limit` bytes.

        Raises:
            InvalidDeclaration: The declaration cannot work; the text says why.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: Another channel has the name.
        """
        parsed = parse_pattern(pattern)
        if not parsed.words:
            raise InvalidDeclaration(
                pattern,
                'expected a {word}, as in "room:{room}"; for one channel use '
                f'comet.create(scope=SITE, name="{pattern}")',
            )
        size = self._node.settings.history_size if size is None else size
        settings = self._node.settings
        html = None if render is None else _make_html(pattern, type, render, settings)
        options = Options(
            size=size, max_age=max_age, linger=linger, type=type, authorize=authorize, html=html
        )
        check_options(parsed, options)
        encode = _make_encode(pattern, type, None)
        if html is not None:
            encode = partial(_encode_with_html, encode, html)
        words = Words.of_family(parsed, authorize)
        return self._add(Declaration(parsed, Kind.SITE, options, words, encode, None))

    def _declare(
        self, name: str, kind: Kind, options: Options, *, continues: bool = False
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        if callable(name):
            raise InvalidDeclaration(
                getattr(name, "__name__", repr(name)),
                'expected a name, as in @comet.channel("ticker"), got the function itself',
            )
        pattern = parse_pattern(name)
        check_options(pattern, options)
        own = kind in (Kind.PROCESS, Kind.UNLIMITED)
        if own:
            called = "@comet.unlimited" if kind is Kind.UNLIMITED else "scope=CLIENT_PROCESS"
            self._node.requests.require_people(f"the channel {name!r} with {called}")
            check_own(pattern, options)

        def declare(function: Callable[P, AsyncIterator[T]]) -> DeclaredChannel[P, T]:
            check_once(name, function)
            check_source(name, function)
            if own:
                check_process_source(name, function)
                self._check_free(f"~{name}")
            if continues:
                check_continuing(name, function)
            words = None if own else Words.of_source(pattern, function, continues=continues)
            encode = _make_encode(name, options.type, function)
            made = Declaration(pattern, kind, options, words, encode, function, continues=continues)
            return self._add(made)

        return declare

    def _add(self, declaration: Declaration) -> DeclaredChannel[Any, Any]:
        declarations = self._node.declarations
        declared: DeclaredChannel[Any, Any] = DeclaredChannel(
            declaration, declarations, self._current
        )
        declarations.add(declaration)
        return declared

    def _check_free(self, name: str) -> None:
        for process in self._node.clients.processes():
            if name in process.place.directory.names():
                raise NonUniqueChannelName(name)

    def _current(self) -> Client:
        instead = "write .channel(process) or .publish(value, process)"
        return self._node.requests.current(instead=instead).process()


def _make_encode(name: str, type_: Any, function: Callable[..., Any] | None) -> Encode:
    try:
        found = item_type(function) if type_ is None and function is not None else type_
        return make_encode(found)
    except TypeError as error:
        raise InvalidDeclaration(name, str(error)) from error


def _make_html(name: str, type_: Any, render: Callable[[Any], str], settings: Settings) -> Html:
    problem = misfit(render, None)
    if problem is not None:
        raise InvalidDeclaration(name, f"expected render to take one value, got {problem}")
    if iscoroutinefunction(render):
        raise InvalidDeclaration(name, "expected render to be a plain function, got an async one")
    most, limit = settings.history_bytes, settings.message_limit
    return make_html(type_, render, most=most, limit=limit)


def _encode_with_html(encode: Encode, html: Html, name: str, value: Any) -> bytes:
    """Encode a value, and have its HTML made now, so that the publisher hears of an error."""
    data = encode(name, value)
    try:
        html(data)
    except Exception as error:
        problem = f"render failed: {type(error).__name__}: {error}"
        raise InvalidMessage(name, [("", problem)]) from error
    return data
