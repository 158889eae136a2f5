"""Named guards: rules of channels that every worker knows by name, because code cannot travel.

Owns which function has which name. Must not know channels, nor when a rule is asked.

A channel that is made at run time is announced to other workers with the name of its rule. Each of
them has a function of that name, by the same line of code. A worker without it, like one of an
older version, must not let any client read the channel.
"""

from __future__ import annotations

from inspect import isfunction

from asgi_comet._runtime.functions import misfit
from asgi_comet.channels.feed import Authorize
from asgi_comet.errors import CometError, InvalidDeclaration

__all__ = ["UNNAMED", "NamedGuards", "UnknownGuard"]

UNNAMED = "?"  # the name of a rule that no worker can find by name


class UnknownGuard(CometError):
    """A channel of another worker has a rule that this worker does not know.

    Attributes:
        name: The name of the rule.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"expected a guard that this worker knows, got {name!r:.200}")
        self.name = name


class NamedGuards:
    """The rules that this worker knows by their names: module and qualified name."""

    def __init__(self) -> None:
        self._known: dict[str, Authorize] = {}

    def add(self, function: Authorize) -> None:
        """Take a function that is to be known by name.

        Raises:
            TypeError: It is not a function of a module, or does not take a connection.
            ValueError: There is another one of that name.
        """
        name = _name_of(function)
        if name == UNNAMED:
            raise TypeError(f"expected a function of a module, got {function!r}")
        problem = misfit(function, None)
        if problem is not None:
            raise TypeError(f"expected a guard to take the connection, got {problem}")
        if self._known.setdefault(name, function) is not function:
            raise ValueError(f"expected one function of the name {name!r}, got another one")

    def note(self, function: Authorize | None) -> None:
        """Take the rule of a declared channel, if it has a name; the first of that name counts."""
        name = _name_of(function)
        if function is not None and name != UNNAMED:
            self._known.setdefault(name, function)

    def get(self, name: str) -> Authorize | None:
        """Return the rule of a name; `None` for `""`, with which every client may read.

        Raises:
            UnknownGuard: This worker does not know it.
        """
        if not name:
            return None
        function = self._known.get(name)
        if function is None:
            raise UnknownGuard(name)
        return function

    def name(self, channel: str, function: Authorize | None, *, imported: bool) -> str:
        """Return the name with which a channel is announced to other workers.

        Args:
            channel: The channel.
            function: Its rule.
            imported: Whether every worker makes the channel, and its rule, by the same line.

        Raises:
            InvalidDeclaration: Other workers would not know the rule.
        """
        if function is None:
            return ""
        name = _name_of(function)
        if not imported and self._known.get(name) is not function:
            raise InvalidDeclaration(
                channel,
                "expected authorize to be a guard, because other workers know a rule by its name: "
                f"write @comet.guard above a function of a module; got {function!r:.200}",
            )
        return name


def _name_of(function: object) -> str:
    if isfunction(function) and function.__qualname__.isidentifier():
        return f"{function.__module__}:{function.__qualname__}"
    return UNNAMED
