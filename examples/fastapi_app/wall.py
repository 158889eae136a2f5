"""The wall: short texts that anyone may write and everyone sees, numbered, the last ones kept.

The numbers are for the page of 2010: the registration protocol keeps no position, so a message
written between two requests of a page is not for that page.
It compares numbers and reads the wall again when one is missing.
"""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints

from asgi_comet import SITE
from examples.fastapi_app.push import comet
from examples.fastapi_app.store import Kept

KEPT = 50
"""Posts that the wall keeps; older ones are dropped."""

TEXT_LIMIT = 280
"""Characters in a post."""


class NewPost(BaseModel):
    """A post as a visitor sends it."""

    text: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_LIMIT)
    ]


class Post(BaseModel):
    """A post as all visitors see it."""

    number: int
    """1 for the first post since the application started, without gaps."""
    text: str
    at: datetime


class Wall(BaseModel):
    """The last `KEPT` posts, oldest first."""

    posts: list[Post] = []

    @property
    def latest(self) -> int:
        """The number of the newest post; 0 when there is none."""
        return self.posts[-1].number if self.posts else 0

    def add(self, new: NewPost) -> Post:
        """Number a post, keep it and return it."""
        post = Post(number=self.latest + 1, text=new.text, at=datetime.now(UTC))
        self.posts = [*self.posts, post][-KEPT:]
        return post


router = APIRouter()
wall = Kept(Wall())
posts = comet.create(scope=SITE, name="wall", size=KEPT)


@router.get("/wall")
async def read_wall() -> list[Post]:
    """Return the posts of the wall, oldest first."""
    return wall.read().posts


@router.post("/wall", status_code=201)
async def write_on_wall(new: NewPost) -> Post:
    """Keep a post, and publish it to everyone."""
    with wall.change() as now:
        post = now.add(new)
    posts.publish(post)
    return post
