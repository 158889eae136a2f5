"""The keys of the client processes that this worker has, for the case that Redis loses them.

Owns that these are told again to a Redis that has lost its data, and that the sets of used keys do
not expire. Must not know which client processes the worker has, nor notifications.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.audience_scripts import SEPARATOR, AudienceScripts
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.replies import Reply
from asgi_comet.brokers.redis.serving import Beginning

__all__ = ["Attending"]

MOST = 500  # calls in one write
KEEP = 3600.0  # seconds between two calls that keep the sets of keys


@dataclass(slots=True, eq=False)
class _Copy:
    """The keys of one client process.

    Attributes:
        members: The notifiers and keys.
        current: Whether the worker is told of changes.
    """

    members: set[str] = field(default_factory=set)
    current: bool = True


class Attending:
    """The keys of client processes, as one worker knows them.

    Args:
        scripts: The scripts.
        clock: The clock.
    """

    def __init__(self, scripts: AudienceScripts, clock: Clock) -> None:
        self._scripts = scripts
        self._clock = clock
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
        call = self._scripts.attended(process)
        return Call(call.command, partial(_take, copy, call))

    async def run(self, connection: Connection) -> NoReturn:
        """Let the sets of keys last as long as they are used."""
        while True:
            await self._clock.sleep_until(self._clock.now() + KEEP)
            members = {member for copy in self._copies.values() for member in copy.members}
            for member in members:
                connection.send(self._scripts.keep_index(member))


def _take(copy: _Copy, call: Call[frozenset[str]], reply: Reply) -> None:
    copy.members = set(call.read(reply))
