"""The entries of the control log: changes that every worker applies.

Owns their form as bytes. Must not know how entries are stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Change", "Entry", "Told", "read_entry", "write_entry"]


@dataclass(frozen=True, slots=True)
class Change:
    """A session has another id.

    Attributes:
        session: The former id.
        new: The present id.
        user: The user as JSON; `None` for a visitor.
        keep: Whether the user is remembered while the session has no client process.
    """

    session: str
    new: str
    user: str | None
    keep: bool


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the worker's own.

    Attributes:
        event: The event.
        lasting: The name of an event that workers are told when they begin; `""` for none.
    """

    event: str
    lasting: str = ""


Entry = Change | Told


def write_entry(entry: Entry) -> bytes:
    """Encode an entry."""
    if isinstance(entry, Told):
        return json.dumps(["told", entry.event, entry.lasting]).encode()
    return json.dumps(["moved", entry.session, entry.new, entry.user, entry.keep]).encode()


def read_entry(data: bytes) -> Entry | None:
    """Decode an entry; `None` for one of a later version."""
    match json.loads(data):
        case ["moved", str(session), str(new), None | str() as user, bool(keep), *_]:
            return Change(session, new, user, keep)
        case ["told", str(event), *more]:
            return Told(event, str(more[0]) if more else "")
        case _:
            return None
