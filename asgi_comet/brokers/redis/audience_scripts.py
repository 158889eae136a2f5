"""The scripts of notifiers, each as a function of its arguments.

Owns the order of keys and arguments, as in the files of `lua/`. The keys of a client process are
the truth; the set of client processes of a key, in another partition, is an index, and each reader
checks its entries. Must not know connections, nor when a script is to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.redis import lua, replies
from asgi_comet.brokers.redis.calls import Argument, Call, call_of, fresh
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.people_replies import read_progress
from asgi_comet.brokers.redis.replies import Reply, Stale, read_stale
from asgi_comet.position import Position

__all__ = ["SEPARATOR", "AudienceScripts", "Message", "Told", "split"]

T = TypeVar("T")

SEPARATOR = "\x1f"  # between the name of a notifier and a key, which is JSON and has none
INDEXED = 32 * 24 * 3_600_000  # ms that the set of a key stays, unless it is used or kept
LATELY = 60_000  # ms in which an entry of the set may precede what the process says
SCANNED = 1000  # entries in one reply, about

Told: TypeAlias = Position | str
"""The position of a message; or why there is none: `closed`, `missing`, `unknown`, `wrong`, or the
reason why the channel has ended."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to the channels of a notifier.

    Attributes:
        notifier: The name of the notifier.
        processes: The client processes.
        data: The value as JSON; `None` ends the channels as full instead.
    """

    notifier: str
    processes: Sequence[str]
    data: bytes | None


@dataclass(frozen=True, slots=True)
class AudienceScripts:
    """The scripts of notifiers in one database.

    Attributes:
        keys: The names of the keys.
        durable: Whether the operator vouches that no acknowledged write is ever lost.
        fresh: Returns unused names.
    """

    keys: Keys
    durable: bool = False
    fresh: Callable[[], str] = field(default=fresh)

    # Client processes by key

    def listen(self, process: str, member: str, *, again: bool = False) -> Call[str]:
        """Add a key to those of a client process; return `ok`, `closed`, or `ended`: the channel.

        Args:
            process: The client process.
            member: The notifier and the key.
            again: Whether the process listened before, and Redis may have lost that.
        """
        keys, name = self.keys.process(process), split(member)[0]
        return call_of(
            lua.LISTEN,
            [keys.process, keys.audiences, keys.channels, keys.channel(name).meta],
            [process, member, name, "PUBLISH", self.keys.inboxes, "1" if again else ""],
            _text,
        )

    def unlisten(self, process: str, member: str) -> Call[bool]:
        """Remove a key from those of a client process; `unindex` and `settle` are to follow."""
        keys = self.keys.process(process)
        arguments: list[Argument] = [process, member, "PUBLISH", self.keys.inboxes]
        return call_of(lua.UNLISTEN, [keys.process, keys.audiences], arguments, bool)

    def settle(self, process: str, member: str) -> Call[bool]:
        """Report that the set of a former key has not the client process any more."""
        key = self.keys.process(process).audiences
        return Call(("SREM", key, f"{SEPARATOR}{member}"), bool)

    def attended(self, process: str, generation: str) -> Call[frozenset[str] | None]:
        """Return the keys of a client process; `None` from data of another generation."""
        keys = [self.keys.process(process).audiences, self.keys.lineage]
        arguments: list[Argument] = [generation, self.fresh(), "1" if self.durable else ""]
        return call_of(lua.ATTENDED, keys, arguments, _read_members)

    def listened(self, process: str) -> Call[frozenset[str]]:
        """Return the keys of a client process, from data of any generation."""
        return Call(("SMEMBERS", self.keys.process(process).audiences), _read_listened)

    def attending(self, processes: Sequence[str], member: str) -> Call[tuple[str, ...]]:
        """Return the sessions of the client processes that listen on a key; `""` for others."""
        found = [self.keys.process(process) for process in processes]
        keys = [key for one in found for key in (one.process, one.audiences)]
        return call_of(lua.ATTENDING, keys, [member], replies.read_texts)

    # The index: client processes of a key

    def index(self, process: str, member: str) -> Call[tuple[str, ...]]:
        """Add a client process to the set of a key."""
        key = self.keys.listeners(*split(member))
        return call_of(lua.INDEX, [key], [process, INDEXED, 0], replies.read_texts)

    def is_indexed(self, process: str, member: str) -> Call[bool]:
        """Return whether the set of a key has a client process."""
        key = self.keys.listeners(*split(member))
        return Call(("ZSCORE", key, process), lambda reply: reply is not None)

    def keep_index(self, member: str) -> Call[int]:
        """Keep the set of a key for longer."""
        return Call(("PEXPIRE", self.keys.listeners(*split(member)), INDEXED), int)

    def unindex(self, member: str, processes: Sequence[str], since: int = LATELY) -> Call[bool]:
        """Remove client processes from the set of a key, unless they were added lately."""
        key = self.keys.listeners(*split(member))
        return call_of(lua.UNINDEX, [key], [since, *processes], bool)

    def scan(self, member: str, cursor: str) -> Call[tuple[str, tuple[str, ...]]]:
        """Return a part of the set of a key, and the cursor of the next part."""
        key = self.keys.listeners(*split(member))
        return Call(("ZSCAN", key, cursor, "COUNT", SCANNED), _read_scan)

    def user(self, session: str) -> Call[str | None]:
        """Return the user of a session, as JSON."""
        return Call(("HGET", self.keys.session(session).session, "u"), _read_user)

    # Messages

    def tell(
        self, worker: str, number: int, messages: Sequence[Message]
    ) -> Call[tuple[Told, ...] | Stale]:
        """Append messages, as one numbered batch of a worker; return what became of each.

        Like a batch of `Scripts.append`, one call may touch several partitions.
        """
        keys = [self.keys.batch(worker), self.keys.lineage]
        generation: list[Argument] = ["1" if self.durable else "", self.fresh(), self.fresh()]
        arguments: list[Argument] = [number, "PUBLISH", *generation, self.keys.inboxes]
        for one in messages:
            ends, data = ("1", b"") if one.data is None else ("", one.data)
            arguments += [one.notifier, ends, data, len(one.processes), *one.processes]
            for process in one.processes:
                keys += self._keys_of(process, one.notifier)
        return call_of(lua.TELL, keys, arguments, _read_told)

    def _keys_of(self, process: str, notifier: str) -> tuple[str, ...]:
        keys = self.keys.process(process)
        channel = keys.channel(notifier)
        return keys.process, keys.audiences, keys.channels, channel.meta, channel.log

    def progress(self, process: str, notifier: str) -> Call[Progress | None]:
        """Return how far a client has read its channel of a notifier.

        The worker that has the reader reports soon what was sent.
        """
        keys = self.keys.process(process).channel(notifier)
        return call_of(lua.PROGRESS, [keys.meta], [keys.name, "PUBLISH"], read_progress)


def split(member: str) -> tuple[str, str]:
    """Return the notifier and the key of a member of the keys of a client process."""
    notifier, _, key = member.partition(SEPARATOR)
    return notifier, key


def _text(reply: Reply) -> str:
    text: str = reply.decode()
    return text


def _read_members(reply: Reply) -> frozenset[str] | None:
    return None if reply is None else _read_listened(reply)


def _read_listened(reply: Reply) -> frozenset[str]:
    return frozenset(one for one in replies.read_texts(reply) if one[0] != SEPARATOR)


def _read_scan(reply: Reply) -> tuple[str, tuple[str, ...]]:
    cursor, found = reply
    return cursor.decode(), replies.read_texts(found[::2])


def _read_user(reply: Reply) -> str | None:
    return None if reply is None else reply.decode()


def _read_told(reply: Reply) -> tuple[Told, ...] | Stale:
    return read_stale(reply) or tuple(map(_read_line, reply.decode().split("\n")))


def _read_line(line: str) -> Told:
    epoch, dot, offset = line.partition(".")
    return Position(epoch, int(offset)) if dot else line
