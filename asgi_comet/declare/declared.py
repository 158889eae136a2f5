"""What a declaration leaves in place of the function: the way to its channels.

Owns how the application asks for one. Must not know when a source runs.

Source: docs/declaring.md.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from asgi_comet.channels.channels import Channel, Options
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.encoding import Encode
from asgi_comet.channels.feed import Authorize, Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.core.pattern import Pattern
from asgi_comet.declare.parameters import Words
from asgi_comet.identity.process import ClientProcess

__all__ = ["Declaration", "DeclaredChannel", "Opener"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What was declared.

    Attributes:
        pattern: The name.
        kind: How it is read.
        options: What it is to be like.
        words: The values of the words of its name; `None` for one of each client process.
        encode: Encodes a value.
    """

    pattern: Pattern
    kind: Kind
    options: Options
    words: Words | None
    encode: Encode


class Opener(ABC):
    """Opens the channels of a declaration."""

    @abstractmethod
    def channel(self, declared: DeclaredChannel[Any, T], parameters: dict[str, Any]) -> Channel[T]:
        """Return a channel of the site, see `DeclaredChannel.channel`."""

    @abstractmethod
    def channel_of(self, declared: DeclaredChannel[Any, T], process: ClientProcess) -> Channel[T]:
        """Return a channel of a client process, see `DeclaredChannel.channel`."""

    @abstractmethod
    def members(self, declared: DeclaredChannel[Any, Any]) -> list[Feed]:
        """Return the live feeds of a declaration."""


class DeclaredChannel(Generic[P, T]):
    """A declared channel, or a family of them.

    A decorator leaves it in place of the function: called, it makes a source, as before.

    Attributes:
        name: The name, with its words; without the `~` of a process channel.
        authorize: Tells who may read it; `None` is everyone.
        function: The declared function; `None` for a family that is only published to.
        declaration: How it was declared.
    """

    def __init__(
        self,
        function: Callable[P, AsyncIterator[T]] | None,
        declaration: Declaration,
        opener: Opener,
        current: Callable[[], ClientProcess],
    ) -> None:
        if function is not None:
            functools.update_wrapper(self, function)
        self.name: str = declaration.pattern.name
        self.authorize: Authorize | None = declaration.options.authorize
        self.declaration: Declaration = declaration
        self.function: Callable[P, AsyncIterator[T]] | None = function
        self._opener = opener
        self._current = current

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """Make a source, for a test of the function.

        Raises:
            TypeError: The family has no function: it is only published to.
        """
        if self.function is None:
            raise TypeError(
                f"expected a declared function, but {self.name!r} is a family without one: "
                "write .publish(value, ...) or .channel(...)"
            )
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        own = "~" if self.own else ""
        return f"<DeclaredChannel {own + self.name!r} live={len(self._opener.members(self))}>"

    @property
    def own(self) -> bool:
        """Whether each client process has one."""
        return self.declaration.words is None

    @property
    def family(self) -> bool:
        """Whether there are words in its name."""
        return bool(self.declaration.pattern.words)

    def publish(self, value: T, /, *args: P.args, **words: P.kwargs) -> Delivery:
        """Publish a value on the channel, or on one member of the family.

        The same as `channel(...).publish(value)`. Thread-safe; never waits.

        Args:
            value: What to send.
            *args: As of `channel`.
            **words: As of `channel`: `rooms.publish(text, room="kitchen")`.

        Returns:
            The delivery: `await` it for the outcome, or drop it.

        Raises:
            TypeError: The channel reads its source on demand, or as `channel`.
            Exception: As `channel`, or as `Channel.publish`.
        """
        return self.channel(*args, **words).publish(value)

    def channel(self, /, *args: P.args, **words: P.kwargs) -> Channel[T]:
        """Return the channel: to publish on it, or to tell a page where it is.

        A channel that does not live is started. A member of a family is stopped again when it has
        had no listener and no use for `linger` seconds. Thread-safe; also before the lifespan runs,
        with which the source begins to be read.

        Args:
            *args: Of a process channel, the client process; by default the current one.
            **words: Of a family, the words of the name.

        Raises:
            NoClientProcess: The channel is for a client process, and there is no current one.
            ProcessClosed: The client process has closed.
            TypeError: These are not the words of the name.
            InvalidName: The words do not fit.
            TooManyFamilyChannels: There are `Settings.max_family_channels` already.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        if self.declaration.words is None:
            return self._opener.channel_of(self, self._owner(args, words))
        return self._opener.channel(self, self.declaration.words.bind(args, words))

    def reference(self, start: str | None = None) -> dict[str, str]:
        """Tell a client where to subscribe, as `channel().reference(start)` does; not of a family.

        Args:
            start: `"now"`, `"first"` or `"last:N"`, see `Channel.reference`.

        Raises:
            TypeError: It is a family: say which, `room.channel(room="blue").reference()`.
            Exception: As `channel`.
        """
        if self.family:
            words = ", ".join(f"{word}=..." for word in self.declaration.pattern.words)
            raise TypeError(
                f"expected one channel, but {self.name!r} is a family: write .channel({words})"
            )
        channel: Callable[[], Channel[T]] = self.channel
        return channel().reference(start)

    def read(self, words: dict[str, str]) -> dict[str, Any] | None:
        """Return the words of a name as values; `None` if one does not fit its type."""
        return None if self.declaration.words is None else self.declaration.words.read(words)

    def name_of(self, parameters: dict[str, Any]) -> str:
        """Return the name in which the words are these values, see `channel`."""
        words = self.declaration.words
        return self.name if words is None else words.fill(parameters)

    def _owner(self, args: tuple[Any, ...], words: dict[str, Any]) -> ClientProcess:
        given = [*args, *words.values()]
        if len(given) > 1:
            raise TypeError(f"expected a client process only, got {[*args, *words]}")
        owner = given[0] if given and given[0] is not None else self._current()
        if not isinstance(owner, ClientProcess):
            raise TypeError(f"expected a client process, got {type(owner).__name__}")
        owner.check_open()
        return owner
