"""The contents of the notification centre: topics, followers, members and notes.

Owns the data that a page needs when it is loaded again, in memory; a real application keeps it in a
database. Knows nothing of channels, HTTP or the page. Not thread-safe: use it from the loop.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from examples.fastapi_app.people import User

KEPT = 50
"""Notes that are kept; older ones are dropped."""

TEXT_LIMIT = 280
"""Characters in a note."""


class Topic(StrEnum):
    """A topic that users can follow."""

    LUNCH = "lunch"
    RELEASES = "releases"
    BOARD = "board"
    """Private: for its members."""


class NewNote(BaseModel):
    """A note as a user sends it."""

    text: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_LIMIT)
    ]


@dataclass
class Note:
    """A note as it is kept."""

    number: int
    """1 for the first note since the application started, without gaps."""
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
    """The content of a page when it is loaded."""

    topics: dict[Topic, bool]
    """Topics that the user may see, and whether the user follows each."""
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
        """Return whether a user may see a topic."""
        return user is not None and (topic is not Topic.BOARD or user in self.members)

    def follow(self, user: User, topic: Topic, *, follows: bool) -> None:
        """Record whether a user follows a topic."""
        (self._follows[user].add if follows else self._follows[user].discard)(topic)

    def followed(self, user: User) -> list[Topic]:
        """Return the topics that a user follows, also those that the user may not see now."""
        return [topic for topic in Topic if topic in self._follows[user]]

    def add(self, topic: Topic, author: User, new: NewNote) -> Note:
        """Number a note, keep it and return it."""
        self._number += 1
        note = Note(self._number, topic, author, new.text, datetime.now(UTC))
        self._notes.append(note)
        return note

    def show(self, user: User | None, note: Note) -> Shown | None:
        """Return a note as a user sees it; `None` if the user may not see it."""
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
        """Return everything that a user may see."""
        follows = self.followed(user)
        shown = [self.show(user, note) for note in self._notes]
        return View(
            topics={topic: topic in follows for topic in Topic if self.may_see(user, topic)},
            members=sorted(self.members) if user is self.chair else [],
            notes=[note for note in shown if note and (note.mine or note.topic in follows)],
        )
