"""The scripts of sessions and client processes, each as a function of its arguments.

Owns the order of keys and arguments, as in the files of `lua/`. All ids of one call are of one
partition. Each script recognises its own repetition: it answers the same, and changes nothing.
Must not know connections, nor when a script is to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from asgi_comet.brokers.redis import lua, people_replies, replies
from asgi_comet.brokers.redis.calls import Argument, Call, Living, call_of, fresh
from asgi_comet.brokers.redis.keys import ChannelKeys, Keys, ProcessKeys, SessionKeys
from asgi_comet.brokers.redis.people_calls import Announced, Mark, Reader
from asgi_comet.brokers.redis.people_replies import (
    Changed,
    Claimed,
    Closed,
    Closing,
    Crowded,
    Entered,
    Made,
    Moved,
    Others,
    Replaced,
    Unexpired,
    Visited,
)
from asgi_comet.brokers.redis.scripts import arguments_of_start
from asgi_comet.core.messages import Start

__all__ = ["PeopleScripts"]

T = TypeVar("T")
Held: TypeAlias = Entered | Closed | Moved

UNCOUNTED = Living()  # of which no worker is known to be dead
MOST = 256  # messages of a page
MOST_BYTES = 256 * 1024  # of the messages of one claim
MOST_PROCESSES = 32  # of a session
TIMEOUT = 600_000  # ms that a client process stays open without a connection
LISTED = 100  # client processes that one sweep returns
RESUMED = 60_000  # ms until another worker goes on with closing a client process


@dataclass(frozen=True, slots=True)
class PeopleScripts:
    """The scripts of sessions and client processes in one database.

    Attributes:
        keys: The names of the keys.
        durable: Whether the operator vouches that no acknowledged write is ever lost.
        timeout: How many milliseconds a client process stays open without a connection.
        most: How many client processes a session may have.
        fresh: Returns unused names.
    """

    keys: Keys
    durable: bool = False
    timeout: int = TIMEOUT
    most: int = MOST_PROCESSES
    fresh: Callable[[], str] = field(default=fresh)

    def visit(self, session: SessionKeys, process: ProcessKeys | None = None) -> Call[Visited]:
        """Return the state of a session, and of a client process, which may be another session's.

        Raises:
            ValueError: The two are of different partitions, so of different sessions.
        """
        keys = [session.session, session.heir, session.processes]
        if process is not None:
            _check_partitions(session, process)
            keys.append(process.process)
        return call_of(lua.VISIT, keys, [], people_replies.read_visited)

    def open_process(
        self,
        session: SessionKeys,
        process: ProcessKeys,
        *,
        default: bool = False,
        instead_of: ProcessKeys | None = None,
    ) -> Call[Made | Crowded | Closed | Moved]:
        """Open a client process in a session.

        Args:
            session: The session.
            process: A client process with an unused id.
            default: Whether the process becomes the session's default process, if there is none.
            instead_of: A process to close if the session has as many as it may: the process that
                the reply `Crowded` names. Nothing changes if another one is longest idle by then.
        """
        _check_partitions(session, process)
        victim = instead_of or process
        keys = [session.session, session.processes, process.process, process.deadlines]
        return call_of(
            lua.OPEN_PROCESS,
            [*keys, session.heir, process.closing, victim.process],
            [
                *(process.id, session.id, self.most, self.timeout, "1" if default else ""),
                instead_of.id if instead_of else "",
            ],
            people_replies.read_made,
        )

    def enter(
        self, session: SessionKeys, process: ProcessKeys, worker: str
    ) -> Call[Entered | Closed | Moved]:
        """Report that a worker has a connection of a client process, which then stays open."""
        return call_of(
            lua.ENTER,
            [process.process, process.deadlines],
            [process.id, session.id, worker, self.timeout],
            people_replies.read_entered,
        )

    def leave(
        self, process: ProcessKeys, worker: str, idle: int = 0, living: Living = UNCOUNTED
    ) -> Call[bool]:
        """Report that a worker has had no connection of a process for `idle` milliseconds.

        The connections of dead workers do not count any more. Returns false if the process has
        closed.
        """
        arguments: list[Argument] = [process.id, worker, self.timeout, idle]
        arguments += (living.at, *living.workers)
        return call_of(lua.LEAVE, [process.process, process.deadlines], arguments, bool)

    def hold(self, session: SessionKeys, process: ProcessKeys, worker: str) -> Call[Held]:
        """Report that a worker keeps state of a client process."""
        return call_of(
            lua.HOLD, [process.process], [session.id, worker], people_replies.read_entered
        )

    def drop(self, process: ProcessKeys, worker: str) -> Call[bool]:
        """Report that a worker keeps no state of a client process any more."""
        return Call(("HDEL", process.process, f"w:{worker}"), bool)

    def forget(self, process: ProcessKeys, worker: str) -> Call[int]:
        """Forget a worker that has come back under another id."""
        return Call(("HDEL", process.process, f"k:{worker}", f"w:{worker}"), int)

    def announce(self, session: SessionKeys, process: ProcessKeys, copy: Announced) -> Call[Held]:
        """Open a client process again, if Redis has lost it, that a worker uses."""
        user = b"" if copy.user is None else copy.user
        return call_of(
            lua.ANNOUNCE,
            [
                *(session.session, session.processes, process.process),
                process.deadlines,
                session.heir,
            ],
            [
                *(process.id, session.id, user, _truth(copy.default), copy.defaults),
                *(_truth(copy.kept), copy.worker, _truth(copy.connected), _truth(copy.held)),
                *(self.timeout, copy.idle, copy.followed),
            ],
            people_replies.read_entered,
        )

    def idle(self, process: ProcessKeys, living: Collection[str]) -> Call[tuple[str, float, bool]]:
        """Return the session of a client process, its idle seconds, and whether it has closed.

        The session is `""` if the process has closed, and if Redis does not know the process.

        Args:
            process: The client process.
            living: The workers whose connections count.
        """
        arguments: list[Argument] = [process.id, self.timeout, *living]
        return call_of(
            lua.IDLE, [process.process, process.deadlines], arguments, people_replies.read_idle
        )

    def owner(self, process: ProcessKeys) -> Call[str]:
        """Return the session of a client process; `""` if there is no open one."""
        return Call(("HMGET", process.process, "s", "x"), people_replies.read_owner)

    def scan(self, partition: int, cursor: str = "0") -> Call[tuple[str, tuple[str, ...]]]:
        """Return a part of a partition's open client processes, and the cursor of the next part."""
        command = ("ZSCAN", self.keys.deadlines(partition), cursor, "COUNT", LISTED)
        return Call(command, people_replies.read_scan)

    def counts(self) -> list[Call[int]]:
        """Return how many client processes are open, one call for each partition."""
        keys = [self.keys.deadlines(partition) for partition in range(self.keys.partitions)]
        return [Call(("ZCARD", key), int) for key in keys]

    def touch(self, partition: int, processes: Sequence[str]) -> Call[tuple[str, ...]]:
        """Postpone the deadlines of connected client processes; return those that have closed.

        Call every minute, with at most 500 processes.
        """
        keys = [self.keys.process(one).process for one in processes]
        return call_of(
            lua.TOUCH,
            [self.keys.deadlines(partition), *keys],
            [self.timeout, *processes],
            replies.read_texts,
        )

    def bury(self, processes: Sequence[str], living: Living) -> Call[int]:
        """Forget the connections and the state that dead workers had of client processes.

        All must be of one partition, at most 500.
        """
        keys = [self.keys.process(one).process for one in processes]
        return call_of(lua.BURY, keys, [living.at, *living.workers], int)

    def late(self, partition: int) -> Call[tuple[str, ...]]:
        """Return client processes whose deadlines are over."""
        return call_of(lua.LATE, [self.keys.deadlines(partition)], [LISTED], replies.read_texts)

    def unfinished(self, partition: int, since: int = RESUMED) -> Call[tuple[str, ...]]:
        """Return client processes that another worker began to close, and has not finished.

        None of these is returned again for `since` milliseconds.
        """
        keys = [self.keys.closing(partition)]
        return call_of(lua.SWEEP, keys, [since, LISTED], replies.read_texts)

    def close(
        self,
        session: SessionKeys,
        process: ProcessKeys,
        worker: str = "",
        *,
        if_late: bool = False,
        resumes: bool = False,
    ) -> Call[Closing | Unexpired | Closed | Moved]:
        """Close a client process: the first phase, after which no connection may use it.

        Answers the same until `finish`.

        Args:
            session: The session of the process.
            process: The client process.
            worker: The caller; the first worker that calls is the one that says farewell.
            if_late: Whether to close the process only if the deadline is over.
            resumes: Whether the caller takes the farewell over, which `unfinished` has returned.
        """
        _check_partitions(session, process)
        return call_of(
            lua.CLOSE,
            [
                *(process.process, session.processes, process.deadlines, process.closing),
                *(session.session, process.registered, process.channels, process.audiences),
            ],
            [process.id, session.id, _truth(if_late), worker, _truth(resumes)],
            people_replies.read_closing,
        )

    def clear(self, process: ProcessKeys, channels: Sequence[ChannelKeys]) -> Call[int]:
        """Delete the own channels of a closed client process.

        Call when the other workers were told and the key sets of notifiers are cleaned.
        """
        return Call(("UNLINK", *_keys_of(process, channels)), int)

    def finish(self, process: ProcessKeys, channels: Sequence[ChannelKeys]) -> Call[bool]:
        """Delete the own channels of a closed client process, and the memory of its closing.

        Call last, when nothing else remains to be done.
        """
        keys = [process.closing, process.process, *_keys_of(process, channels)]
        return call_of(lua.FINISH, keys, [process.id], bool)

    def prolong(self, process: ProcessKeys) -> Call[int]:
        """Report that this worker still does what remains; see `unfinished`."""
        return call_of(lua.PROLONG, [process.closing], [process.id], int)

    def abandon(self, process: ProcessKeys) -> Call[int]:
        """Let another worker soon do what remains to be done for a closed client process."""
        return Call(("ZADD", process.closing, "XX", 0, process.id), int)

    def move(
        self,
        session: SessionKeys,
        new: SessionKeys,
        processes: Sequence[ProcessKeys],
        *,
        user: bytes | None,
        keep: bool = False,
    ) -> Call[Changed | Others | Moved]:
        """Give a session another id and another user: login and logout.

        Client processes of a visitor, or of the same user, are the new id's; of another user, they
        close. The new id belongs to this call: a repeated call with it answers the same.

        Args:
            session: The session by its present id.
            new: The session by an unused id of the same partition.
            processes: The client processes of the session; nothing changes if it has others, which
                the reply then names.
            user: The user as JSON; `None` for a visitor.
            keep: Whether to remember the user while the session has no client process.
        """
        _check_partitions(session, new, *processes)
        root = session.root
        return call_of(
            lua.MOVE,
            [
                *(session.session, new.session, session.processes, new.processes, session.heir),
                *(f"{root}exp", f"{root}closing", *(one.process for one in processes)),
            ],
            [
                *(session.id, new.id, b"" if user is None else user, "1" if keep else ""),
                *(one.id for one in processes),
            ],
            people_replies.read_changed,
        )

    def claim(
        self,
        session: SessionKeys,
        process: ProcessKeys,
        reader: Reader,
        channels: Sequence[tuple[ChannelKeys, Start]],
        *,
        most: int = MOST,
        max_bytes: int = MOST_BYTES,
    ) -> Call[Claimed | Replaced | Closed | Moved]:
        """Let a connection read own channels of a client process, instead of any that came before.

        Counts as `enter`. A position acknowledges all messages up to it, unless the connection has
        claimed before. A relative start forgets that a channel of the name has ended.

        Args:
            session: The session of the connection.
            process: The client process.
            reader: The connection. Another one is told of, unless this worker has it, too.
            channels: The own channels, and from where to read each.
            most: How many messages of a channel to return.
            max_bytes: How many bytes of messages to return, but at least one message.
        """
        unused = self.fresh()  # of a generation and of an epoch, which are never compared
        keys = [process.process, process.deadlines, self.keys.lineage, process.channels]
        arguments: list[Argument] = [
            *(process.id, session.id, reader.worker, self.timeout),
            *(str(reader), self.keys.inbox(reader.worker), reader.former),
            *("PUBLISH", "1" if self.durable else ""),
            *(unused, unused, most, max_bytes),
            *(_whole(one) for one in reader.came),
        ]
        for one, start in channels:
            keys += [one.meta, one.log]
            arguments += (one.own_name, *arguments_of_start(start, own=True))
        return call_of(lua.CLAIM, keys, arguments, people_replies.read_claimed)

    def mark(self, marks: Sequence[Mark]) -> Call[tuple[bool | str, ...]]:
        """Report what readers were sent and have; return which channels know the offsets.

        A text is the error of a channel of which another program uses a key.
        """
        keys: list[str] = []
        arguments: list[Argument] = []
        for one in marks:
            keys += [one.keys.meta, one.keys.log]
            arguments += [one.epoch, _optional(one.sent), _optional(one.acknowledged)]
            arguments += one.skipped or ("", "")
        return call_of(lua.MARK, keys, arguments, people_replies.read_marked)

    def save(self, process: ProcessKeys, reader: Reader, state: bytes) -> Call[bool]:
        """Store the state of the registration protocol if a connection still reads."""
        return call_of(lua.SAVE, [process.process, process.registered], [str(reader), state], bool)

    def load(self, process: ProcessKeys) -> Call[bytes | None]:
        """Return the state of the registration protocol."""
        return Call(("GET", process.registered), people_replies.read_state)


def _keys_of(process: ProcessKeys, channels: Sequence[ChannelKeys]) -> list[str]:
    keys = [process.channels, process.audiences]
    for one in channels:
        keys += [one.meta, one.log, one.ids, one.positions, one.state]
    return keys


def _check_partitions(first: SessionKeys, *others: SessionKeys | ProcessKeys) -> None:
    for other in others:
        if other.root != first.root:
            raise ValueError(f"expected {other.id!r} in the partition of {first.id!r}")


def _truth(value: object) -> Argument:
    return "1" if value else ""


def _whole(number: float) -> Argument:
    return int(number) if math.isfinite(number) else ""


def _optional(number: int | None) -> Argument:
    return "" if number is None else number
