"""Declaring channels: the decorators of `Comet` that turn a function into a channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, ParamSpec, TypeVar

from asgi_comet.annotations import item_type
from asgi_comet.calls import misfit
from asgi_comet.channels import Options
from asgi_comet.declared import Declaration, DeclaredChannel
from asgi_comet.encoding import Encode, make_encode
from asgi_comet.errors import InvalidDeclaration, NonUniqueChannelName
from asgi_comet.feeds import Authorize, Kind
from asgi_comet.hub import Hub
from asgi_comet.names import check_own_name
from asgi_comet.patterns import Pattern, parse_pattern
from asgi_comet.processes import ClientProcess
from asgi_comet.scopes import CLIENT_PROCESS, SITE, Scope
from asgi_comet.words import Words, check_process_source, check_source

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
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel that reads what a function yields, as soon as values come.

        - `@comet.channel("ticker")`: a channel of the site, started when the application has.
        - `@comet.channel("room:{room}")`: a family. A member starts with its first listener, is
          shared by all who ask for its name, and is stopped `Settings.linger` seconds after the
          last one left. `{word}` is one or more characters other than `:` and `/`; the function has
          a parameter for each word; a value that does not fit its type names no channel, nor does
          another spelling of one that does.
        - `@comet.channel("inbox", scope=CLIENT_PROCESS)`: `~inbox` of each client process that asks
          for it, until that closes. The function gets the `ClientProcess`.

        A source that raises is started again, after 0.1 s to 30 s, and readers are told `full`, for
        that is another incarnation of the channel. One that ends, ends its channel: it comes again
        with the next start of the application, or with the next first listener once what remained
        is forgotten.

        Args:
            name: How clients know it, without the `~` of a process channel.
            scope: `SITE` or `CLIENT_PROCESS`.
            size: How many messages it holds; by default `Settings.history_size`.
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

        Source: api.md, "Declaring channels".
        """
        if scope not in (SITE, CLIENT_PROCESS):
            reason = f"expected scope to be SITE or CLIENT_PROCESS, got {scope!r}"
            raise InvalidDeclaration(name, reason)
        kind = Kind.SITE if scope is SITE else Kind.PROCESS
        size = self._hub.settings.history_size if size is None else size
        return self._declare(name, kind, Options(size=size, type=type, authorize=authorize))

    def newest(
        self,
        name: str,
        *,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        authorize: Authorize | None = None,
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel, or a family, of which clients get only the last message.

        Its readers do not notice that a source was started again. For the rest see `channel`.

        Source: api.md, "Declaring channels".
        """
        return self._declare(name, Kind.NEWEST, Options(size=1, type=type, authorize=authorize))

    def unlimited(
        self,
        name: str,
        *,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
    ) -> Callable[[Callable[P, AsyncIterator[T]]], DeclaredChannel[P, T]]:
        """Declare a channel of each client process that is read only while its client asks.

        It is one message ahead of what the client took. For the rest see `channel`, with the scope
        `CLIENT_PROCESS`, and `create_unlimited`.

        Source: api.md, "Declaring channels".
        """
        size = self._hub.settings.history_size
        return self._declare(name, Kind.UNLIMITED, Options(size=size, type=type))

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
            words = None if own else Words(pattern, function)
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
        return self._hub.visits.current().process()


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


def _make_encode(name: str, type_: Any, function: Callable[..., Any]) -> Encode:
    try:
        return make_encode(item_type(function) if type_ is None else type_)
    except TypeError as error:
        raise InvalidDeclaration(name, str(error)) from error
