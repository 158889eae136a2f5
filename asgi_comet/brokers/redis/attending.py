"""The keys of the client processes that this worker has, for the case that Redis loses them.

Owns that these are told again to a Redis that has lost its data, that tabs are told `full` if Redis
has lost only some, and that the sets of used keys do not expire. Must not know which client
processes the worker has, nor notifications.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.audience_scripts import SEPARATOR, AudienceScripts, split
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.replies import Reply
from asgi_comet.brokers.redis.serving import Beginning
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Attending"]

MOST = 500  # calls in one write
LOOK = 600.0  # seconds between two looks for keys that Redis has lost
KEEP = 6  # looks between two calls that keep the sets of keys


@dataclass(slots=True, eq=False)
class _Copy:
    """The keys of one client process.

    Attributes:
        members: The notifiers and keys.
        current: Whether the worker is told of changes.
        missing: Those of the members that Redis did not have at the last look.
    """

    members: set[str] = field(default_factory=set)
    current: bool = True
    missing: set[str] = field(default_factory=set)


class Attending:
    """The keys of client processes, as one worker knows them.

    Args:
        scripts: The scripts.
        clock: The clock.
        generation: Returns the generation of the data.

    Attributes:
        overflow: Ends the channel of a notifier and a client process as full.
    """

    def __init__(
        self, scripts: AudienceScripts, clock: Clock, generation: Callable[[], str]
    ) -> None:
        self.overflow: Callable[[str, str], Awaitable[None]] = _ignore
        self._scripts = scripts
        self._clock = clock
        self._generation = generation
        self._copies: dict[str, _Copy] = {}
        self._connection: Connection | None = None

    def __len__(self) -> int:
        return len(self._copies)

    # The client processes of this worker

    def attend(self, process: str) -> None:
        """Know the keys of a client process, now that Redis knows that this worker has it."""
        copy = self._copies.get(process)
        if copy is not None and copy.current:
            return
        copy = self._copies[process] = copy or _Copy()
        copy.current = True
        if self._connection is not None:
            self._read(self._connection, process, copy)

    def leave(self, process: str) -> None:
        """Report that this worker may not be told of changes from now on."""
        copy = self._copies.get(process)
        if copy is not None:
            copy.current = False

    def forget(self, process: str) -> None:
        """Forget a client process. Idempotent."""
        self._copies.pop(process, None)

    # Frames

    def take_listening(self, frame: bytes) -> None:
        """Take the report that a client process listens on a key."""
        process, _, member = frame[1:].decode().partition(" ")
        copy = self._copies.get(process)
        if copy is not None:
            copy.members.add(member)

    def take_unlistening(self, frame: bytes) -> None:
        """Take the report that a client process listens no more: on a key, or on all."""
        process, _, member = frame[1:].decode().partition(" ")
        copy = self._copies.get(process)
        if copy is None:
            return
        if member.endswith(SEPARATOR):
            copy.members = {one for one in copy.members if not one.startswith(member)}
        else:
            copy.members.discard(member)

    # Connections

    async def begin(self, beginning: Beginning) -> None:
        """Read on a new connection what this worker has missed, or tell what Redis has lost."""
        connection = self._connection = beginning.connection
        calls = self._list_lost(connection) if beginning.renewed else self._list_reads()
        asked: list[asyncio.Future[Any]] = []
        for call in calls:
            asked.append(connection.send(call))
            if len(asked) == MOST:
                await asyncio.gather(*asked, return_exceptions=True)
                asked.clear()
        await asyncio.gather(*asked, return_exceptions=True)

    def _list_lost(self, connection: Connection) -> Iterator[Call[Any]]:
        for process, copy in list(self._copies.items()):
            for member in list(copy.members):
                call = self._scripts.listen(process, member, again=True)
                index = partial(self._index, connection, process, member, call)
                yield Call(call.command, index, call.script)

    def _index(
        self, connection: Connection, process: str, member: str, call: Call[str], reply: Reply
    ) -> None:
        if call.read(reply) == "ok":
            connection.send(self._scripts.index(process, member))

    def _list_reads(self) -> Iterator[Call[Any]]:
        for process, copy in list(self._copies.items()):
            if copy.current:
                yield self._make_read(process, copy)

    def _read(self, connection: Connection, process: str, copy: _Copy) -> None:
        connection.send(self._make_read(process, copy))

    def _make_read(self, process: str, copy: _Copy) -> Call[None]:
        """Return the call that reads the keys, which are taken in order with the frames."""
        call = self._scripts.attended(process, self._generation())
        return Call(call.command, partial(_take, copy, call), call.script)

    async def run(self, connection: Connection) -> NoReturn:
        """Look for lost keys, and let the sets of keys last as long as they are used."""
        for number in count(1):
            await self._clock.sleep_until(self._clock.now() + LOOK)
            copies = [one for one in self._copies.items() if one[1].current and one[1].members]
            for begin in range(0, len(copies), MOST):
                looks = (self._look(connection, *one) for one in copies[begin : begin + MOST])
                await asyncio.gather(*looks)
            if number % KEEP == 0:
                self._keep(connection)
        raise AssertionError  # pragma: no cover - the loop has no end

    def _keep(self, connection: Connection) -> None:
        members = {member for copy in self._copies.values() for member in copy.members}
        for member in members:
            connection.send(self._scripts.keep_index(member))

    async def _look(self, connection: Connection, process: str, copy: _Copy) -> None:
        """Tell a tab `full` that has listened in vain: Redis has lost a key or the set of a key."""
        members = list(copy.members)
        calls = [self._scripts.is_indexed(process, member) for member in members]
        found = [connection.send(call) for call in calls]
        with suppress(ReplyError):
            listened = await connection.send(self._scripts.listened(process))
            indexed = {one for one, there in zip(members, found, strict=True) if await there}
            missing, before = set(members) - (listened & indexed), copy.missing
            # At two looks: a worker that lets a process listen adds the process to the set last,
            # and a Redis that has lost all data is told again.
            copy.missing = missing & copy.members
            for notifier in {split(member)[0] for member in copy.missing & before}:
                with suppress(BrokerUnavailable):  # then at the next look
                    await self.overflow(f"~{notifier}", process)


def _take(copy: _Copy, call: Call[frozenset[str] | None], reply: Reply) -> None:
    members = call.read(reply)
    if members is not None:  # else Redis has lost the keys, and is told them again
        copy.members = set(members)


async def _ignore(name: str, process: str) -> None:
    """Do nothing."""
