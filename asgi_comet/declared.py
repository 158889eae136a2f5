"""What a declaration leaves in place of the function: the way to its channels.

Owns how the application asks for one. Must not know when a source runs.

Source: api.md, "Declaring channels".
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .channels import Channel, Options
from .encoding import Encode
from .feeds import Authorize, Kind
from .patterns import Pattern
from .processes import ClientProcess
from .words import Words

if TYPE_CHECKING:
    from .declarations import Declarations

__all__ = ["Declaration", "DeclaredChannel"]

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


class DeclaredChannel(Generic[P, T]):
    """What a declaration leaves in place of the function: called, it makes a source, as before.

    Attributes:
        name: The name, with its words; without the `~` of a process channel.
        authorize: Who may read it; `None` is everyone.
        function: What was declared.
        declaration: How.
    """

    def __init__(
        self,
        function: Callable[P, AsyncIterator[T]],
        declaration: Declaration,
        declarations: Declarations,
        current: Callable[[], ClientProcess],
    ) -> None:
        functools.update_wrapper(self, function)
        self.name: str = declaration.pattern.name
        self.authorize: Authorize | None = declaration.options.authorize
        self.declaration: Declaration = declaration
        self.function: Callable[P, AsyncIterator[T]] = function
        self._declarations = declarations
        self._current = current

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """Make a source, for a test of the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        own = "~" if self.own else ""
        return f"<DeclaredChannel {own + self.name!r} live={len(self._declarations.members(self))}>"

    @property
    def own(self) -> bool:
        """Whether each client process has one."""
        return self.declaration.words is None

    @property
    def family(self) -> bool:
        """Whether there are words in its name."""
        return bool(self.declaration.pattern.words)

    def channel(self, /, process: Any = None, **parameters: Any) -> Channel[T]:
        """Return the channel: to publish on it, or to tell a page where it is.

        It is started if it does not live: a member of a family that nobody comes to is stopped
        again. Thread-safe; also before the lifespan runs, with which the source begins to be read.

        Args:
            process: Of a process channel, whose it is; by default that of the current one.
            **parameters: Of a family, the words of the name.

        Raises:
            NoClientProcess: It is for a client process, and there is no current one.
            ProcessClosed: The client process has closed.
            TypeError: These are not the words of its name.
            InvalidName: They do not fit.
            TooManyFamilyChannels: There are `Settings.max_family_channels` already.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        if self.own:
            if parameters:
                raise TypeError(f"expected a client process only, got {list(parameters)}")
            return self._declarations.channel_of(self, self._owner(process))
        if process is not None:
            parameters["process"] = process  # a word as good as any other
        return self._declarations.channel(self, parameters)

    def reference(self) -> dict[str, str]:
        """Tell a client where to subscribe, as `channel().reference()` does; not of a family.

        Raises:
            TypeError: It is a family: say which, `room.channel(room="blue").reference()`.
            Exception: As `channel`.
        """
        return self.channel().reference()

    def read(self, words: dict[str, str]) -> dict[str, Any] | None:
        """Return the words of a name as values; `None` if one does not fit its type."""
        return None if self.declaration.words is None else self.declaration.words.read(words)

    def name_of(self, parameters: dict[str, Any]) -> str:
        """Return the name in which the words are these values, see `channel`."""
        words = self.declaration.words
        return self.name if words is None else words.fill(parameters)

    def _owner(self, process: Any) -> ClientProcess:
        owner = self._current() if process is None else process
        if not isinstance(owner, ClientProcess):
            raise TypeError(f"expected a client process, got {type(owner).__name__}")
        owner.check_open()
        return owner
