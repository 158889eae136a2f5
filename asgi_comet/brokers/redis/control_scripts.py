"""The scripts of the control log and of the index of users, each as a function of its arguments.

Owns the form of the rows of the control log: the time in milliseconds, an id, the worker that wrote
the row, and the entry. Must not know connections, nor the meaning of an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from asgi_comet.brokers.redis import lua, replies
from asgi_comet.brokers.redis.calls import Argument, Call, call_of, fresh
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.replies import Reply

__all__ = ["AGAIN", "ControlScripts", "Heard", "Row", "read_frame"]

T = TypeVar("T")

ENTRIES = 10_000  # of the control log
PAGE = 500  # entries in one reply
AGAIN = "-"  # in place of the sender, which waits no more
INDEXED = 32 * 24 * 3_600_000  # ms that the index of a user stays; longer than a kept session
LATELY = 60_000  # ms in which an entry of the index may precede its session
CHECKED = 10  # sessions of a user that are looked at when another one is added


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the control log.

    Attributes:
        at: When Redis stored the entry first, in milliseconds.
        id: The id of the entry.
        sender: The worker, which waits for confirmations; `AGAIN` if the entry is told again.
        entry: The entry.
    """

    at: int
    id: str
    sender: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """A part of the control log.

    Attributes:
        epoch: The epoch of the offsets.
        top: The offset of the newest row.
        first: The offset of the first row in this part.
        now: The time of Redis in milliseconds.
        rows: The rows.
    """

    epoch: str
    top: int
    first: int
    now: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ControlScripts:
    """The scripts of the control log in one database.

    Attributes:
        keys: The names of the keys.
        durable: Whether the operator vouches that no acknowledged write is ever lost.
        fresh: Returns unused names.
    """

    keys: Keys
    durable: bool = False
    fresh: Callable[[], str] = field(default=fresh)

    def tell_all(self, row: Row, *, lasting: str = "", event: str = "") -> Call[frozenset[str]]:
        """Add an entry, once within two minutes, and return the living workers.

        Args:
            row: The entry; `at` is 0 for now.
            lasting: The name of an event that workers are told when they begin; `""` for none.
            event: The event.
        """
        keys = self.keys
        return call_of(
            lua.TELL_ALL,
            [
                *(keys.control_record, keys.control, keys.workers, keys.lineage),
                *(keys.entry(row.id), keys.lasting),
            ],
            [
                *(row.id, row.sender, row.entry, keys.everyone, "PUBLISH"),
                *(*self._generation(), ENTRIES, lasting, event, row.at or ""),
            ],
            _read_workers,
        )

    def hear(self, epoch: str, offset: int, most: int = PAGE) -> Call[Heard]:
        """Return the entries after a position; all that are held, if the epoch is another one."""
        keys = self.keys
        return call_of(
            lua.HEAR,
            [keys.control_record, keys.control, keys.lineage],
            [*self._generation(), epoch, offset, most],
            _read_heard,
        )

    def confirm(self, row: Row, worker: str) -> Call[int]:
        """Tell the sender of an entry that a worker has applied the entry."""
        return Call(("PUBLISH", self.keys.inbox(row.sender), f"a{row.id} {worker}"), int)

    def tell_closed(self, process: str, worker: str) -> Call[int]:
        """Tell a worker that a client process has closed."""
        return Call(("PUBLISH", self.keys.inbox(worker), f"x{process}"), int)

    def lasting(self) -> Call[dict[str, str]]:
        """Return the events that workers are told when they begin, by name."""
        return Call(("HGETALL", self.keys.lasting), _read_lasting)

    # The sessions of a user

    def index(self, user: bytes, session: str) -> Call[tuple[str, ...]]:
        """Add a session to those of a user; return some of the user's sessions to look at."""
        arguments: list[Argument] = [session, INDEXED, CHECKED]
        return call_of(lua.INDEX, [self.keys.user(user)], arguments, replies.read_texts)

    def keep_index(self, user: bytes) -> Call[int]:
        """Keep the sessions of a user for longer."""
        return Call(("PEXPIRE", self.keys.user(user), INDEXED), int)

    def unindex(self, user: bytes, sessions: Sequence[str], since: int = LATELY) -> Call[bool]:
        """Remove sessions from those of a user, unless they were added lately."""
        return call_of(lua.UNINDEX, [self.keys.user(user)], [since, *sessions], bool)

    def indexed(self, user: bytes) -> Call[tuple[str, ...]]:
        """Return the sessions that may be a user's."""
        return Call(("ZRANGE", self.keys.user(user), 0, -1), replies.read_texts)

    def _generation(self) -> list[Argument]:
        return ["1" if self.durable else "", self.fresh(), self.fresh()]


def read_frame(frame: bytes) -> tuple[str, int, Row]:
    """Read the epoch, the offset and the row of a frame of the control log."""
    epoch, offset, row = frame.split(b" ", 2)
    return epoch.decode(), int(offset), _read_row(row)


def _read_row(row: bytes) -> Row:
    at, id_, sender, entry = row.split(b" ", 3)
    return Row(int(at), id_.decode(), sender.decode(), entry)


def _read_heard(reply: Reply) -> Heard:
    epoch, top, first, now, rows = reply
    return Heard(epoch.decode(), top, first, now, tuple(map(_read_row, rows)))


def _read_lasting(reply: Reply) -> dict[str, str]:
    texts = replies.read_texts(reply if isinstance(reply, list) else sum(reply.items(), ()))
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _read_workers(reply: Reply) -> frozenset[str]:
    return frozenset(replies.read_texts(reply))
