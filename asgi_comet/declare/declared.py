"""DeclaredChannel: the object that replaces a declared function and gives its channels.

Owns how the application gets a declared channel. Must not know when a source runs.

Source: docs/declaring.md.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from asgi_comet.channels.channels import Channel, Options
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.encoding import Encode
from asgi_comet.channels.feed import Authorize, Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.core.pattern import Pattern
from asgi_comet.declare.parameters import Words
from asgi_comet.identity.process import Client, client_of

__all__ = ["Declaration", "DeclaredChannel", "Opener"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Declaration:
    """The parts of a declaration.

    Attributes:
        pattern: The name.
        kind: The kind of the channel.
        options: The options of the channel.
        words: The parameters of the name; `None` for a channel of each client process.
        encode: Encodes a value.
        function: The declared function; `None` for a family that is only published to.
        continues: Whether the source goes on after the newest message when it is started again.
        name: The name as text, with its words; without the `~` of a process channel.
        authorize: Tells who may read it; `None` is everyone.
        own: Whether each client process has one.
        family: Whether there are words in its name.
    """

    pattern: Pattern
    kind: Kind
    options: Options
    words: Words | None
    encode: Encode
    function: Callable[..., AsyncIterator[Any]] | None
    continues: bool = False
    name: str = field(init=False)
    authorize: Authorize | None = field(init=False)
    own: bool = field(init=False)
    family: bool = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.pattern.name
        self.authorize = self.options.authorize
        self.own = self.words is None
        self.family = bool(self.pattern.words)

    def read(self, words: dict[str, str]) -> dict[str, Any] | None:
        """Return the words of a name as values; `None` if one does not fit its type."""
        return None if self.words is None else self.words.read(words)

    def name_of(self, parameters: dict[str, Any]) -> str:
        """Return the name in which the words are these values, see `DeclaredChannel.channel`."""
        return self.name if self.words is None else self.words.fill(parameters)


class Opener(ABC):
    """Opens the channels of a declaration."""

    @abstractmethod
    def channel(self, declared: Declaration, parameters: dict[str, Any]) -> Channel[Any]:
        """Return a channel of the site, see `DeclaredChannel.channel`."""

    @abstractmethod
    def channel_of(self, declared: Declaration, process: Client) -> Channel[Any]:
        """Return a channel of a client process, see `DeclaredChannel.channel`."""

    @abstractmethod
    def members(self, declared: Declaration) -> list[Feed]:
        """Return the live feeds of a declaration."""


class DeclaredChannel(Generic[P, T]):
    """A declared channel, or a family of them.

    A decorator puts this object in place of the function. Calling the object makes a source.

    Attributes:
        name: The name, with its words; without the `~` of a process channel.
        function: The declared function; `None` for a family that is only published to.
    """

    def __init__(
        self, declaration: Declaration, opener: Opener, current: Callable[[], Client]
    ) -> None:
        if declaration.function is not None:
            functools.update_wrapper(self, declaration.function)
        self.name: str = declaration.name
        self.function: Callable[P, AsyncIterator[T]] | None = declaration.function
        self._declaration = declaration
        self._opener = opener
        self._current = current

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """Make a source, for a test of the function.

        Raises:
            TypeError: The family has no function.
        """
        if self.function is None:
            raise TypeError(
                f"expected a declared function, but {self.name!r} is a family without one: "
                "write .publish(value, ...) or .channel(...)"
            )
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        name = ("~" if self._declaration.own else "") + self.name
        return f"<DeclaredChannel {name!r} live={len(self._opener.members(self._declaration))}>"

    def publish(self, value: T, /, *args: P.args, **words: P.kwargs) -> Delivery:
        """Publish a value on the channel, or on one member of the family.

        The same as `channel(...).publish(value)`. Thread-safe; never waits.

        Args:
            value: The value to send.
            *args: See `channel`.
            **words: See `channel`: `rooms.publish(text, room="kitchen")`.

        Returns:
            The delivery: `await` it for the outcome, or drop it.

        Raises:
            TypeError: The channel reads its source on demand, or see `channel`.
            Exception: See `channel` and `Channel.publish`.
        """
        return self.channel(*args, **words).publish(value)

    def channel(self, /, *args: P.args, **words: P.kwargs) -> Channel[T]:
        """Return the channel, to publish on it or to give a page its reference.

        Starts a channel that is not live. A member of a family is stopped after `linger` seconds
        without a listener and without use. Thread-safe. Before the lifespan runs, the channel
        exists but its source is not read yet.

        Args:
            *args: For a process channel, the client process; by default the current one.
            **words: For a family, the words of the name.

        Raises:
            NoClientProcess: The channel is for a client process, and there is no current one.
            ProcessClosed: The client process has closed.
            TypeError: The arguments are not the words of the name.
            InvalidName: The words do not fit.
            TooManyFamilyChannels: There are `Settings.max_family_channels` already.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        declaration = self._declaration
        if declaration.words is None:
            return self._opener.channel_of(declaration, self._owner(args, words))
        return self._opener.channel(declaration, declaration.words.bind(args, words))

    def reference(self, start: str | None = None) -> dict[str, str]:
        """Return where a client subscribes, as `channel().reference(start)` does; not for a family.

        Args:
            start: `"now"`, `"first"` or `"last:N"`, see `Channel.reference`.

        Raises:
            TypeError: The name is a family: write `room.channel(room="blue").reference()`.
            Exception: See `channel`.
        """
        if self._declaration.family:
            words = ", ".join(f"{word}=..." for word in self._declaration.pattern.words)
            raise TypeError(
                f"expected one channel, but {self.name!r} is a family: write .channel({words})"
            )
        channel: Callable[[], Channel[T]] = self.channel
        return channel().reference(start)

    def _owner(self, args: tuple[Any, ...], words: dict[str, Any]) -> Client:
        given = [*args, *words.values()]
        if len(given) > 1:
            raise TypeError(f"expected a client process only, got {[*args, *words]}")
        named = given and given[0] is not None
        owner = client_of(given[0]) if named else self._current()
        owner.check_open()
        return owner
