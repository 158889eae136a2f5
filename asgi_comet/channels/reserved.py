"""Reserved names: the names of declared channels, taken before a channel is made.

Owns which declaration a name belongs to. Must not know how channels are made. Lookups are
thread-safe; the caller serialises additions.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from asgi_comet.channels.feed import Authorize
from asgi_comet.core.names import is_name
from asgi_comet.core.pattern import Pattern
from asgi_comet.errors import InvalidDeclaration, NonUniqueChannelName

__all__ = ["Owner", "Reserved"]


class Owner(Protocol):
    """The declaration that a name belongs to."""

    @property
    def authorize(self) -> Authorize | None:
        """Decides which clients may read the channels; `None` is every client."""

    def read(self, words: dict[str, str]) -> dict[str, object] | None:
        """Parse the words of a name; `None` if they do not fit."""
        ...


class Reserved:
    """Declared names: exact names, families, and names in every client process."""

    def __init__(self) -> None:
        self._exact: dict[str, Owner] = {}
        self._families: tuple[tuple[Pattern, Owner], ...] = ()
        self._own: dict[str, Owner | None] = {}

    def add(self, pattern: Pattern, owner: Owner) -> None:
        """Reserve the site names that a pattern matches.

        Raises:
            NonUniqueChannelName: The same name is already declared.
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
            NonUniqueChannelName: The name is already declared.
        """
        if name in self._own:
            raise NonUniqueChannelName(f"~{name}")
        self._own[name] = owner

    def find(self, name: str) -> tuple[Owner, dict[str, object]] | None:
        """Return the declaration of a site name, and its words; exact names come first.

        A name that channels may not have belongs to no family, even if a pattern matches.
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

    def label(self, name: str) -> str | None:
        """Return the declared name that a name, as clients write it, belongs to; `None` if none.

        Without the check of the words, as the channel exists: for figures.
        """
        if name.startswith("~"):
            return name if name[1:] in self._own else None
        if name in self._exact:
            return name
        return next(
            (pattern.name for pattern, _ in self._families if pattern.match(name) is not None), None
        )

    def named(self, name: str) -> Owner | None:
        """Return the declaration with this name; a family's name includes its words."""
        for pattern, family in self._families:
            if pattern.name == name:
                return family
        return self._exact.get(name)

    def labelled(self, label: str) -> Owner | None:
        """Return the declaration of a site name, or of a name in every client process, with `~`."""
        return self.find_own(label[1:]) if label.startswith("~") else self.named(label)

    def owners(self) -> list[Owner]:
        """Return all declarations."""
        families = (family for _, family in self._families)
        return [*self._exact.values(), *families, *(own for own in self._own.values() if own)]

    def names(self) -> list[str]:
        """Return the declared names of the site, families with their words."""
        return [*self._exact, *self.families]

    @property
    def labels(self) -> list[str]:
        """All declared names as clients write them, families with their words."""
        return [*self.names(), *(f"~{name}" for name in self._own)]

    @property
    def families(self) -> list[str]:
        """The names of families, with their words."""
        return [pattern.name for pattern, _ in self._families]

    @property
    def digest(self) -> str:
        """The same for all applications that declare the same names."""
        return hashlib.sha256("\n".join(sorted(self.labels)).encode()).hexdigest()[:16]

    def find_own(self, name: str) -> Owner | None:
        """Return the declaration of a name, without its `~`, in every client process."""
        return self._own.get(name)

    def taken(self, name: str) -> bool:
        """Return whether a name, as clients write it, is declared."""
        return name[1:] in self._own if name.startswith("~") else self.find(name) is not None

    def check(self, name: str) -> None:
        """Check that a name, as clients write it, is not declared.

        Raises:
            NonUniqueChannelName: The name is declared.
        """
        if self.taken(name):
            raise NonUniqueChannelName(name)
