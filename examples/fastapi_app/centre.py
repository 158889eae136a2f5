"""The contents of the notification centre: topics, followers, members and notes.

Owns the data that a page needs when it is loaded again. Knows nothing of channels, HTTP or the
page, nor of where the data is kept.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

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


class Note(BaseModel):
    """A note as it is kept."""

    number: int
    """1 for the first note since the application started, without gaps."""
    topic: Topic
    author: User
    text: str
    at: datetime
    seen_by: list[User] = []


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


class Centre(BaseModel):
    """The topics."""

    chair: User = User.ALICE
    members: set[User] = set(User)
    follows: dict[User, set[Topic]] = Field(default={user: set(Topic) for user in User})
    notes: list[Note] = []
    number: int = 0
    """The number of the newest note."""

    def may_see(self, user: User | None, topic: Topic) -> bool:
        """Return whether a user may see a topic."""
        return user is not None and (topic is not Topic.BOARD or user in self.members)

    def follow(self, user: User, topic: Topic, *, follows: bool) -> None:
        """Record whether a user follows a topic."""
        (self.follows[user].add if follows else self.follows[user].discard)(topic)

    def followed(self, user: User) -> list[Topic]:
        """Return the topics that a user follows, also those that the user may not see now."""
        return [topic for topic in Topic if topic in self.follows[user]]

    def add(self, topic: Topic, author: User, new: NewNote) -> Note:
        """Number a note, keep it and return it."""
        self.number += 1
        now = datetime.now(UTC)
        note = Note(number=self.number, topic=topic, author=author, text=new.text, at=now)
        self.notes = [*self.notes, note][-KEPT:]
        return note

    def see(self, number: int, users: list[User]) -> None:
        """Record who has seen a note."""
        for note in self.notes:
            if note.number == number:
                note.seen_by = users

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
        shown = [self.show(user, note) for note in self.notes]
        return View(
            topics={topic: topic in follows for topic in Topic if self.may_see(user, topic)},
            members=sorted(self.members) if user is self.chair else [],
            notes=[note for note in shown if note and (note.mine or note.topic in follows)],
        )
