"""The messages and bids of each room, in a database."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

DATABASE = Path(os.environ.get("DATABASE") or Path(tempfile.mkdtemp()) / "auction.sqlite")
COLUMNS = "id INTEGER PRIMARY KEY, room INTEGER, type TEXT, user TEXT, text TEXT, amount INTEGER"
with closing(sqlite3.connect(DATABASE)) as connection:
    connection.execute(f"CREATE TABLE IF NOT EXISTS entries ({COLUMNS})")


class Said(BaseModel):
    type: Literal["said"] = "said"
    id: int
    user: str
    text: str


class Bid(BaseModel):
    type: Literal["bid"] = "bid"
    id: int
    user: str
    amount: int


Entry = Annotated[Said | Bid, Field(discriminator="type")]
ENTRY: TypeAdapter[Said | Bid] = TypeAdapter(Entry)


class History(BaseModel):
    highest: Bid | None
    entries: list[Entry]


class TooLow(Exception):
    """Another bid is at least as high."""


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def add_said(room: int, user: str, text: str) -> Said:
    insert = "INSERT INTO entries (room, type, user, text) VALUES (?, 'said', ?, ?) RETURNING *"
    with transaction() as connection:
        return Said(**connection.execute(insert, (room, user, text)).fetchone())


def add_bid(room: int, user: str, amount: int) -> tuple[Bid, Bid | None]:
    """Return the new bid, and the former highest one."""
    insert = "INSERT INTO entries (room, type, user, amount) VALUES (?, 'bid', ?, ?) RETURNING *"
    with transaction() as connection:
        before = _highest(connection, room)
        if before is not None and before.amount >= amount:
            raise TooLow
        return Bid(**connection.execute(insert, (room, user, amount)).fetchone()), before


def _highest(connection: sqlite3.Connection, room: int) -> Bid | None:
    select = "SELECT * FROM entries WHERE room = ? AND type = 'bid' ORDER BY amount DESC LIMIT 1"
    row = connection.execute(select, (room,)).fetchone()
    return row and Bid(**row)


def read_history(room: int) -> History:
    """Return the last 100 entries of a room, the oldest first, and its highest bid."""
    select = "SELECT * FROM entries WHERE room = ? ORDER BY id DESC LIMIT 100"
    with transaction() as connection:
        rows = connection.execute(select, (room,)).fetchall()
        entries = [ENTRY.validate_python(dict(row)) for row in reversed(rows)]
        return History(highest=_highest(connection, room), entries=entries)
