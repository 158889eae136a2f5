"""The names that are taken before a channel of that name lives: those of declared channels.

Owns which declaration a name belongs to. Must not know how channels are made. Looked up in
any thread; what adds to it takes its turn.
"""

from __future__ import annotations

from typing import Protocol

from asgi_comet.channels.feed import Authorize
from asgi_comet.core.names import is_name
from asgi_comet.core.pattern import Pattern
from asgi_comet.errors import InvalidDeclaration, NonUniqueChannelName

__all__ = ["Owner", "Reserved"]


class Owner(Protocol):
    """Whom a name belongs to."""

    @property
    def authorize(self) -> Authorize | None:
        """Who may read the channels of that name; `None` is everyone."""

    def read(self, words: dict[str, str]) -> dict[str, object] | None:
        """Return the words of a name as it understands them; `None` if that is none of its."""
        ...


class Reserved:
    """Declared names: exact ones, families, and those that every client process has."""

    def __init__(self) -> None:
        self._exact: dict[str, Owner] = {}
        self._families: tuple[tuple[Pattern, Owner], ...] = ()
        self._own: dict[str, Owner | None] = {}

    def add(self, pattern: Pattern, owner: Owner) -> None:
        """Reserve the names of the site that a pattern matches.

        Raises:
            NonUniqueChannelName: The same name is declared already.
            InvalidDeclaration: A family could match the same names.
        """
        if not pattern.words:
            if self._exact.setdefault(pattern.name, owner) is not owner:
                raise NonUniqueChannelName(pattern.name)
            return
        for other, _ in self._families:
            if other.name == pattern.name:
                raise NonUniqueChannelName(pattern.name)
            if other.overlaps(pattern):
                reason = f"expected no name that {other.name!r} matches, too"
                raise InvalidDeclaration(pattern.name, reason)
        self._families = (*self._families, (pattern, owner))

    def add_own(self, name: str, owner: Owner | None) -> None:
        """Reserve a name, without its `~`, in every client process.

        Raises:
            NonUniqueChannelName: It is declared already.
        """
        if name in self._own:
            raise NonUniqueChannelName(f"~{name}")
        self._own[name] = owner

    def find(self, name: str) -> tuple[Owner, dict[str, object]] | None:
        """Return whom a name of the site belongs to, and its words; an exact one comes first.

        A name that no channel may have belongs to no family, whatever its pattern matches.
        """
        owner = self._exact.get(name)
        if owner is not None:
            return owner, {}
        if not self._families or not is_name(name):
            return None
        for pattern, family in self._families:
            words = pattern.match(name)
            if words is not None:  # no other family can match
                read = family.read(words)
                return None if read is None else (family, read)
        return None

    def named(self, name: str) -> Owner | None:
        """Return what was declared by that very name, with its words if it is a family's."""
        for pattern, family in self._families:
            if pattern.name == name:
                return family
        return self._exact.get(name)

    def names(self) -> list[str]:
        """Return the names of the site as they were declared, families with their words."""
        return [*self._exact, *(pattern.name for pattern, _ in self._families)]

    def find_own(self, name: str) -> Owner | None:
        """Return whom a name, without its `~`, belongs to in every client process."""
        return self._own.get(name)

    def taken(self, name: str) -> bool:
        """Tell whether a name, as clients say it, is declared."""
        return name[1:] in self._own if name.startswith("~") else self.find(name) is not None

    def check(self, name: str) -> None:
        """Raise if a name, as clients say it, is declared, so that nobody else may have it.

        Raises:
            NonUniqueChannelName: It is.
        """
        if self.taken(name):
            raise NonUniqueChannelName(name)
