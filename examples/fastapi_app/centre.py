"""What there is to be notified of: topics, who follows them, who may, and what was written.

Owns what a page must find again when it is loaded anew, in memory: a real application has it in its
database. Knows nothing of channels, of HTTP or of the page. Not thread-safe: use it from the loop.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from examples.fastapi_app.people import User

KEPT = 50
"""Notes that are held; older ones are forgotten."""

TEXT_LIMIT = 280
"""Characters in a note."""


class Topic(StrEnum):
    """What one can follow."""

    LUNCH = "lunch"
    RELEASES = "releases"
    BOARD = "board"
    """Private: for its members."""


class NewNote(BaseModel):
    """What a user writes."""

    text: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_LIMIT)
    ]


@dataclass
class Note:
    """What was written."""

    number: int
    """1 for the first since the application started, then dense."""
    topic: Topic
    author: User
    text: str
    at: datetime
    seen_by: list[User] = field(default_factory=list)


class Shown(BaseModel):
    """A note as one user sees it."""

    number: int
    topic: Topic
    author: User
    text: str
    at: datetime
    mine: bool
    """This user wrote it."""
    mentioned: bool
    """This user's name is in it."""
    seen_by: list[User] | None
    """Only its author is told."""


class View(BaseModel):
    """All that a page shows when it is loaded."""

    topics: dict[Topic, bool]
    """Those that this user may see, and whether that user follows them."""
    members: list[User]
    """Of the board; for its chair only."""
    notes: list[Shown]
    """The oldest first."""


class Centre:
    """The topics."""

    def __init__(self) -> None:
        self.chair = User.ALICE
        self.members = set(User)
        self._follows = {user: set(Topic) for user in User}
        self._notes: deque[Note] = deque(maxlen=KEPT)
        self._number = 0

    def may_see(self, user: User | None, topic: Topic) -> bool:
        """Tell whether a topic is any business of a user."""
        return user is not None and (topic is not Topic.BOARD or user in self.members)

    def follow(self, user: User, topic: Topic, *, follows: bool) -> None:
        """Take note of whether a user follows a topic."""
        (self._follows[user].add if follows else self._follows[user].discard)(topic)

    def followed(self, user: User) -> list[Topic]:
        """Return what a user follows, also what this user may not see right now."""
        return [topic for topic in Topic if topic in self._follows[user]]

    def add(self, topic: Topic, author: User, new: NewNote) -> Note:
        """Number a note, keep it and return it."""
        self._number += 1
        note = Note(self._number, topic, author, new.text, datetime.now(UTC))
        self._notes.append(note)
        return note

    def show(self, user: User | None, note: Note) -> Shown | None:
        """Return a note as a user sees it; `None` if it is not for that one."""
        if user is None or not self.may_see(user, note.topic):
            return None
        return Shown(
            number=note.number,
            topic=note.topic,
            author=note.author,
            text=note.text,
            at=note.at,
            mine=note.author == user,
            mentioned=user in note.text.lower(),
            seen_by=note.seen_by if note.author == user else None,
        )

    def view(self, user: User) -> View:
        """Return all that a user may see."""
        follows = self.followed(user)
        shown = [self.show(user, note) for note in self._notes]
        return View(
            topics={topic: topic in follows for topic in Topic if self.may_see(user, topic)},
            members=sorted(self.members) if user is self.chair else [],
            notes=[note for note in shown if note and (note.mine or note.topic in follows)],
        )
