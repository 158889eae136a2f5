"""What all workers of the demo know: values in a database, and that one of them has changed.

Owns the database: the file that `DEMO_DATABASE` names, or the memory of one worker. Knows nothing
of the values, nor of channels. A real application has a database server. Use it from the loop.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from anyio import Event, sleep
from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)

LOOK_AGAIN = 0.05
"""Seconds between two looks at what other workers have written."""

database = sqlite3.connect(
    os.environ.get("DEMO_DATABASE") or ":memory:", isolation_level=None, check_same_thread=False
)
database.execute("CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT)")


class Kept(Generic[T]):
    """One value, the same in all workers.

    Args:
        first: The value at first, whose class is its name.
    """

    def __init__(self, first: T) -> None:
        self._class = type(first)
        row = (self._class.__name__, first.model_dump_json())
        database.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", row)

    def read(self) -> T:
        """Return the value as it is now."""
        select = "SELECT value FROM kept WHERE name = ?"
        (text,) = database.execute(select, (self._class.__name__,)).fetchone()
        return self._class.model_validate_json(text)

    @contextmanager
    def change(self) -> Iterator[T]:
        """Change the value in the context, which must not wait; one worker at a time does."""
        database.execute("BEGIN IMMEDIATE")
        with database:  # the end of the transaction
            value = self.read()
            yield value
            row = (value.model_dump_json(), self._class.__name__)
            database.execute("UPDATE kept SET value = ? WHERE name = ?", row)
        changes.announce()


class Changes:
    """Wakes tasks of this worker that wait for a change in any worker."""

    def __init__(self) -> None:
        self._changed = Event()

    def announce(self) -> None:
        """Report a change."""
        self._changed.set()
        self._changed = Event()

    async def wait(self) -> None:
        """Wait until a value changes."""
        await self._changed.wait()

    async def watch(self) -> None:
        """Report the changes of other workers, until cancelled."""
        seen = None
        while True:
            (version,) = database.execute("PRAGMA data_version").fetchone()
            if version != seen:
                seen = version
                self.announce()
            await sleep(LOOK_AGAIN)


changes = Changes()
