"""The replies of the scripts of sessions and client processes, as values.

Knows the form of these replies, and no other part of Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.redis.pages import Page, read_page
from asgi_comet.brokers.redis.replies import Record, Reply, read_texts

__all__ = [
    "Changed",
    "Claimed",
    "Closed",
    "Closing",
    "Crowded",
    "Entered",
    "Made",
    "Missing",
    "Moved",
    "Others",
    "OwnPage",
    "Replaced",
    "Unexpired",
    "Visited",
]


@dataclass(frozen=True, slots=True)
class Closed:
    """The client process has closed, or was never opened."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The session has another id by now, or the client process is of another session.

    Attributes:
        session: The other id.
    """

    session: str


@dataclass(frozen=True, slots=True)
class Visited:
    """The state of a session, and of a client process.

    Attributes:
        heir: The id that has lately followed the session's id, or `""`.
        user: The user as JSON; `None` for a visitor.
        default: The default client process, or `""`.
        defaults: How many default client processes the session has had.
        kept: Whether the session is kept without a client process.
        session: The session of the client process, or `""` if there was no such process.
        closed: Whether that client process has closed.
        processes: The open client processes of the session, the oldest first.
        followed: The id that has followed the session's id at any time, or `""`.
    """

    heir: str
    user: bytes | None
    default: str
    defaults: int
    kept: bool
    session: str
    closed: bool
    processes: tuple[str, ...] = ()
    followed: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """The session has the client process.

    Attributes:
        process: The id; another one than proposed if the session has a default process already.
    """

    process: str


@dataclass(frozen=True, slots=True)
class Crowded:
    """The session has as many client processes as it may.

    Attributes:
        idle: The process longest without a connection; `""` if all are connected.
    """

    idle: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The connection is registered with its client process."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another connection reads the client process by now."""


class OwnPage(NamedTuple):
    """The next messages of an own channel.

    Attributes:
        page: The messages.
        record: The properties of the channel.
        progress: How far the client has read.
    """

    page: Page
    record: Record
    progress: Progress


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no own channel of that name.

    Attributes:
        past: Whether a channel of that name has ended since a reader asked for a relative start.
    """

    past: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """The connection reads the client process.

    Attributes:
        pages: The next messages of each channel, in the order of the question.
    """

    pages: tuple[OwnPage | Missing, ...]


@dataclass(frozen=True, slots=True)
class Unexpired:
    """The deadline of the client process is not over; the process stays open."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The client process has closed; the rest remains to be done by any worker, then `finish`.

    Attributes:
        workers: The workers that have its connections or its state.
        channels: The own channels: `KIND,SIZE` by name.
        audiences: The notifiers and keys that the process listened on.
        session: The session.
        user: The user as JSON, if the session has no client process any more.
        kept: Whether that session is kept.
        mine: Whether the caller says farewell: it runs the functions of the application.
    """

    workers: frozenset[str]
    channels: Mapping[str, str]
    audiences: frozenset[bytes]
    session: str
    user: bytes | None = None
    kept: bool = False
    mine: bool = True


@dataclass(frozen=True, slots=True)
class Changed:
    """The session has its new id.

    Attributes:
        processes: The client processes that the session had.
        closed: Whether they are closing; else they are the new id's.
    """

    processes: tuple[str, ...]
    closed: bool


@dataclass(frozen=True, slots=True)
class Others:
    """The session has other client processes than the caller named; nothing has changed.

    Attributes:
        processes: The client processes of the session.
    """

    processes: tuple[str, ...]


PROGRESS = ("e", "k", "a", "ja", "j")  # fields of the record of an own channel, see `common.lua`
PAST = ":"  # begins the field of a name whose last channel has ended

Refusal: TypeAlias = Closed | Moved


def read_visited(reply: Reply) -> Visited:
    """Read the state of a session and of a client process."""
    heir, user, default, defaults, kept, session, closed, processes, followed = reply
    return Visited(
        heir.decode(),
        user or None,
        default.decode(),
        defaults,
        kept == 1,
        session.decode(),
        closed == 1,
        read_texts(processes),
        followed.decode(),
    )


def read_made(reply: Reply) -> Made | Crowded | Refusal:
    """Read whether a session has a new client process."""
    match reply:
        case [b"ok", process]:
            return Made(process.decode())
        case [b"many", idle]:
            return Crowded(idle.decode())
        case _:
            return read_refusal(reply)


def read_entered(reply: Reply) -> Entered | Refusal:
    """Read whether a connection is registered."""
    return Entered() if reply == [b"ok"] else read_refusal(reply)


def read_claimed(reply: Reply) -> Claimed | Replaced | Refusal:
    """Read the pages of the own channels of a client process."""
    match reply:
        case [b"ok", *pages]:
            return Claimed(tuple(map(_read_own_page, pages)))
        case [b"replaced"]:
            return Replaced()
        case _:
            return read_refusal(reply)


def _read_own_page(reply: Reply) -> OwnPage | Missing:
    if isinstance(reply, bytes):
        return Missing(reply == b"past")
    page = read_page(reply[0])
    assert isinstance(page, Page)  # noqa: S101 - else the script answers with a word
    kind, size, max_bytes, age, traits = (value.decode() for value in reply[1:6])
    record = Record(
        *(kind, page.making, int(size), int(max_bytes), int(age) if age else None),
        *(page.closed, page.owner, page.guard, traits),
    )
    sent, got, after, upto = map(int, reply[6:])
    return OwnPage(page, record, Progress(page.epoch, sent, got, (after, upto)))


def read_progress(reply: Reply) -> Progress | None:
    """Read how far the reader of an own channel has got: the fields `PROGRESS` of the record."""
    if reply[0] is None:
        return None
    sent, got, after, upto = (int(value or 0) for value in reply[1:])
    return Progress(reply[0].decode(), sent, got, (after, upto))


def read_state(reply: Reply) -> bytes | None:
    """Read the state of the registration protocol."""
    state: bytes | None = reply
    return state


def read_closing(reply: Reply) -> Closing | Unexpired | Refusal:
    """Read the rest of closing a client process."""
    match reply:
        case [b"closed", workers, channels, audiences, session, user, kept, mine]:
            names = read_texts(channels)
            of = {
                name: value
                for name, value in zip(names[::2], names[1::2], strict=True)
                if name[0] != PAST  # its messages expire without further ado
            }
            told = frozenset(read_texts(workers))
            return Closing(
                *(told, of, frozenset(audiences), session.decode(), user or None),
                *(kept == 1, mine == 1),
            )
        case [b"alive"]:
            return Unexpired()
        case _:
            return read_refusal(reply)


def read_changed(reply: Reply) -> Changed | Others | Moved:
    """Read whether a session has another id."""
    what, text = reply
    if what == b"stale":
        return Moved(text.decode())
    processes = tuple(text.decode().split())
    return Others(processes) if what == b"others" else Changed(processes, what == b"closed")


def read_refusal(reply: Reply) -> Refusal:
    """Read why a session may not use a client process."""
    match reply:
        case [b"gone"]:
            return Closed()
        case [b"moved", session]:
            return Moved(session.decode())
        case _:
            raise ValueError(f"expected why a client process is refused, got {reply!r:.80}")


def read_owner(reply: Reply) -> str:
    """Read the session of a client process; `""` if there is no open one."""
    session, closed = reply
    return "" if session is None or closed is not None else session.decode()


def read_idle(reply: Reply) -> tuple[str, float, bool]:
    """Read the session of a client process, how long it is idle, and whether it has closed."""
    session, idle, closed = reply
    return session.decode(), idle / 1000, closed == 1


def read_scan(reply: Reply) -> tuple[str, tuple[str, ...]]:
    """Read a part of a sorted set, and where the next part begins."""
    cursor, found = reply
    return cursor.decode(), read_texts(found[::2])


def read_marked(reply: Reply) -> tuple[bool | str, ...]:
    """Read which channels know the offsets, or the error of a channel."""
    return tuple(one.decode() if isinstance(one, bytes) else one == 1 for one in reply)
