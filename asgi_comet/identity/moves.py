"""Logins and logouts of this worker that the store does not know yet.

Owns what the session was before, in case the store refuses. Must not know how the store is told.
"""

from __future__ import annotations

from typing import Any

from asgi_comet.identity.process import Session

__all__ = ["Move", "Moves"]


class Move:
    """One change of the id and the user of a session.

    Attributes:
        session: The session.
        old: The id before.
        new: The id from now on.
        before: The user before.
        after: The change before this one, if the store did not know that either.
        refused: Whether the store has refused the change.
    """

    __slots__ = ("after", "before", "new", "old", "refused", "session")

    def __init__(
        self, session: Session, old: str, new: str, before: Any, after: Move | None
    ) -> None:
        self.session: Session = session
        self.old: str = old
        self.new: str = new
        self.before: Any = before
        self.after: Move | None = after
        self.refused: bool = False

    def is_void(self) -> bool:
        """Return whether the change before this one was refused; this one is then to be, too."""
        after = self.after
        if after is None or not after.refused:
            return False
        self.old, self.before = after.old, after.before
        return True


class Moves:
    """The changes that are on their way. The caller holds a lock."""

    def __init__(self) -> None:
        self._by_new: dict[str, Move] = {}
        self._by_old: dict[str, Move] = {}

    def begin(self, session: Session, old: str, before: Any) -> None:
        """Record that a session has another id in this worker.

        Args:
            session: The session, with its new id.
            old: The id before.
            before: The user before.
        """
        move = Move(session, old, session.id, before, self._by_new.get(old))
        self._by_new[move.new] = self._by_old[old] = move

    def to(self, new: str) -> Move | None:
        """Return the change that gives a session an id."""
        return self._by_new.get(new)

    def of(self, old: str) -> Move | None:
        """Return the change that takes an id from a session."""
        return self._by_old.get(old)

    def end(self, move: Move) -> None:
        """Forget a change: the store knows it, or has refused it."""
        for table in (self._by_new, self._by_old):
            for id_ in [id_ for id_, one in table.items() if one is move]:
                del table[id_]

    def user_before(self, session: Session) -> Any:
        """Return the user that a session has in the store."""
        move = self._by_new.get(session.id)
        return session.user if move is None else move.before
