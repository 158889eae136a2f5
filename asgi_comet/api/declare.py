"""Declaring channels: the decorators of `Comet` that turn a function into a channel."""

from __future__ import annotations

import builtins
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from starlette.requests import HTTPConnection

from asgi_comet._runtime.functions import misfit
from asgi_comet.channels.annotations import item_type
from asgi_comet.channels.channels import Options
from asgi_comet.channels.encoding import Encode, make_encode
from asgi_comet.channels.feed import Authorize
from asgi_comet.channels.html import make_html
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.scope import CLIENT_PROCESS, SITE, Scope
from asgi_comet.channels.source import check_ahead
from asgi_comet.core.names import check_own_name
from asgi_comet.core.pattern import Pattern, parse_pattern
from asgi_comet.declare.declared import Declaration, DeclaredChannel
from asgi_comet.declare.parameters import Words, check_process_source, check_source
from asgi_comet.errors import InvalidDeclaration, InvalidMessage, NonUniqueChannelName
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.protocol.sse import Html
from asgi_comet.settings import Settings

__all__ = ["Declaring"]

P = ParamSpec("P")
T = TypeVar("T")


class Declaring:
    """Declares channels."""

    _hub: Hub

    def channel(
        self,
        name: str,
        *,
        scope: Scope = SITE,
        size: int | None = None,
        linger: float | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel that reads what a function yields, as soon as values come.

        - `@comet.channel("ticker")`: a channel of the site, started when the application has.
        - `@comet.channel("room:{room}")`: a family. A member starts with its first listener, is
          shared by all who ask for its name, and is stopped `linger` seconds after its last
          listener and the last `publish`, whichever is later. `{word}` is one or more characters
          other than `:` and `/`; the function has a parameter for each word; a value that does not
          fit its type names no channel, nor does another spelling of one that does.
        - `@comet.channel("inbox", scope=CLIENT_PROCESS)`: `~inbox` of each client process that asks
          for it, until that closes. The function gets the `ClientProcess`.

        A source that raises is started again after a random pause: at most 0.5 s at first, twice as
        long with each further failure, never over 30 s. Readers are told `full`, for that is
        another incarnation of the channel. One that ends, ends its channel: it comes again
        with the next start of the application, or with the next first listener once what remained
        is forgotten.

        Args:
            name: How clients know it, without the `~` of a process channel.
            scope: `SITE` or `CLIENT_PROCESS`.
            size: How many messages it holds; by default `Settings.history_size`.
            linger: For how many seconds a member of a family stays without listeners, and for how
                many what remains of a channel can be read after its end; by default
                `Settings.linger`.
            type: The type of its values, anything pydantic knows; by default that of the function,
                or else any value.
            authorize: Called with the connection, and the words of the name by their own names:
                tells whether somebody may read it, sync or async. Asked at each subscription and
                each resume; `None` is everyone. Not for a process channel, which has one reader.

        Returns:
            A decorator of an async generator function.

        Raises:
            InvalidDeclaration: The declaration cannot work; the text says why.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: Another one has it.
        """
        if scope not in (SITE, CLIENT_PROCESS):
            reason = f"expected scope to be SITE or CLIENT_PROCESS, got {scope!r}"
            raise InvalidDeclaration(name, reason)
        kind = Kind.SITE if scope is SITE else Kind.PROCESS
        size = self._hub.settings.history_size if size is None else size
        options = Options(size=size, linger=linger, type=type, authorize=authorize)
        return self._declare(name, kind, options)

    def newest(
        self,
        name: str,
        *,
        linger: float | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel, or a family, of which clients get only the last message.

        Its readers do not notice that a source was started again. For the rest see `channel`.
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

        Its source is never read further than `ahead` messages beyond what the client has
        acknowledged. For the rest see `channel`, with the scope `CLIENT_PROCESS`, and
        `create_unlimited`.

        Args:
            name: How clients know it, without the `~`.
            type: The type of its values.
            ahead: How many messages to read before the client acknowledges them, at least 1.

        Raises:
            InvalidDeclaration: `ahead` is less than 1, or the declaration cannot work.
        """
        try:
            check_ahead(ahead)
        except ValueError as error:
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
        linger: float | None = None,
        render: Callable[[Any], str] | None = None,
    ) -> DeclaredChannel[..., Any]: ...

    def family(
        self,
        pattern: str,
        *,
        type: Any = Any,  # noqa: A002 - the word users know from pydantic
        size: int | None = None,
        linger: float | None = None,
        authorize: Authorize | None = None,
        render: Callable[[Any], str] | None = None,
    ) -> DeclaredChannel[..., Any]:
        """Declare a family of channels that are only published to.

        `rooms = comet.family("room:{room}", type=Said)`, and then
        `rooms.publish(Said(...), room="kitchen")` from anywhere. A member begins to live with its
        first listener or its first `publish`. It costs no task.

        Args:
            pattern: The name, with at least one `{word}`. A word has the type with which
                `authorize` annotates it, by default text; text also takes a number.
            type: The type of the values, anything pydantic knows; by default any value.
            size: How many messages a member holds; by default `Settings.history_size`.
            linger: For how many seconds a member lives after its last listener and its last
                `publish`, whichever is later; by default `Settings.linger`. What it held is gone
                then.
            authorize: As of `channel`.
            render: Makes the HTML of a value, for clients that ask for `format=text`, as htmx does.
                Escape what people wrote: use a template, or `markupsafe.escape`. All other clients
                get the value as JSON. It is called once per value, by `publish`, in the caller's
                thread; and again, in the event loop, for a value that is read much later, so it
                must be fast. Its result is at most `Settings.message_limit` bytes.

        Raises:
            InvalidDeclaration: The declaration cannot work; the text says why.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: Another one has it.
        """
        parsed = parse_pattern(pattern)
        if not parsed.words:
            raise InvalidDeclaration(
                pattern,
                'expected a {word}, as in "room:{room}"; for one channel use '
                f'comet.create(scope=SITE, name="{pattern}")',
            )
        size = self._hub.settings.history_size if size is None else size
        settings = self._hub.settings
        html = None if render is None else _make_html(pattern, type, render, settings)
        options = Options(size=size, linger=linger, type=type, authorize=authorize, html=html)
        _check_options(parsed, options)
        encode = _make_encode(pattern, type, None)
        if html is not None:
            encode = partial(_encode_with_html, encode, html)
        words = Words.of_family(parsed, authorize)
        declaration = Declaration(parsed, Kind.SITE, options, words, encode)
        declarations = self._hub.declarations
        declared: DeclaredChannel[..., Any] = DeclaredChannel(
            None, declaration, declarations, self._current
        )
        declarations.add(declared)
        return declared

    def _declare(
        self, name: str, kind: Kind, options: Options
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        if callable(name):
            raise InvalidDeclaration(
                getattr(name, "__name__", repr(name)),
                'expected a name, as in @comet.channel("ticker"), got the function itself',
            )
        pattern = parse_pattern(name)
        _check_options(pattern, options)
        own = kind in (Kind.PROCESS, Kind.UNLIMITED)
        if own:
            _check_own(pattern, options)

        def declare(function: Callable[P, AsyncIterator[T]]) -> DeclaredChannel[P, T]:
            _check_once(name, function)
            check_source(name, function)
            if own:
                check_process_source(name, function)
                self._check_free(f"~{name}")
            words = None if own else Words.of_source(pattern, function)
            encode = _make_encode(name, options.type, function)
            declaration = Declaration(pattern, kind, options, words, encode)
            declarations = self._hub.declarations
            declared = DeclaredChannel(function, declaration, declarations, self._current)
            declarations.add(declared)
            return declared

        return declare

    def _check_free(self, name: str) -> None:
        for process in self._hub.processes.processes():
            if name in process.place.directory.names():
                raise NonUniqueChannelName(name)

    def _current(self) -> ClientProcess:
        instead = "write .channel(process) or .publish(value, process)"
        return self._hub.visits.current(instead=instead).process()


def _check_once(name: str, function: object) -> None:
    if isinstance(function, DeclaredChannel):
        known = ("~" if function.own else "") + function.name
        raise InvalidDeclaration(
            name,
            f"expected an async generator function, got one that is declared already, as {known!r}"
            "; for another name of it declare its attribute `function`",
        )


def _check_options(pattern: Pattern, options: Options) -> None:
    if options.size < 1:
        reason = f"expected size to be a number of messages, at least 1, got {options.size!r}"
        raise InvalidDeclaration(pattern.name, reason)
    linger = options.linger
    if linger is not None and not 0 <= linger < math.inf:
        reason = f"expected linger to be a number of seconds, at least 0, got {linger!r}"
        raise InvalidDeclaration(pattern.name, reason)
    if options.authorize is not None:
        _check_authorize(pattern, options.authorize)


def _check_authorize(pattern: Pattern, authorize: Authorize) -> None:
    if not callable(authorize):
        raise InvalidDeclaration(
            pattern.name, f"expected authorize to be a function, got {type(authorize).__name__}"
        )
    problem = misfit(authorize, None, **dict.fromkeys(pattern.words))
    if problem is not None:
        raise InvalidDeclaration(
            pattern.name,
            f"expected authorize to take the connection, and {list(pattern.words)} by name, got "
            f"{problem}",
        )


def _check_own(pattern: Pattern, options: Options) -> None:
    check_own_name(pattern.name)
    if pattern.words:
        raise InvalidDeclaration(
            pattern.name,
            f"expected no words, got {list(pattern.words)}: each client process has one channel of "
            "that name, and nobody else asks for it",
        )
    if options.authorize is not None:
        raise InvalidDeclaration(
            pattern.name,
            "expected no authorize: only its own client process reads a process channel",
        )


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
