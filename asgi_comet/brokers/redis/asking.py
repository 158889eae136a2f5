"""Questions about sessions and client processes: sent at once, and again if a reply is lost.

Owns the repetition of calls that recognise it, and the doubt whether Redis has lost its data.
Must not know the meaning of a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Serving
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Asking"]

T = TypeVar("T")

ATTEMPTS = 5  # connections on which a call is tried


class Asking:
    """Runs scripts for coroutines.

    Args:
        scripts: The scripts.
        serving: The connection.
        beginning: The connection to use before it serves.
    """

    def __init__(
        self, scripts: Scripts, serving: Serving, beginning: Connection | None = None
    ) -> None:
        self._scripts = scripts
        self._serving = serving
        self._beginning = beginning

    async def ask(self, call: Call[T]) -> T:
        """Run a script that recognises a repeated call.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses the call.
        """
        (reply,) = await self.ask_all([call])
        return reply

    async def ask_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Run scripts in one write; see `ask`."""
        for left in reversed(range(ATTEMPTS)):
            connection = self._beginning or await self._serving.connected()
            asked = [connection.send(call) for call in calls]
            try:
                return [await reply for reply in asked]
            except BrokerUnavailable as error:
                if not left or (isinstance(error, ReplyError) and connection.closed is None):
                    raise
                await asyncio.sleep(0)  # until the connection is replaced
        raise AssertionError  # pragma: no cover - the last attempt raises

    async def ready(self) -> None:
        """Return once the connection serves; for the tasks of a connection."""
        await self._serving.up()

    async def check(self) -> None:
        """Return if Redis has lost no data, or all workers have reported what they have since.

        Raises:
            BrokerUnavailable: A reply that something is missing proves nothing.
        """
        connection = await self._serving.connected()
        if not await self.is_sure(connection) or self._serving.recovers:
            raise BrokerUnavailable("Redis has lost its data")

    async def is_sure(self, connection: Connection) -> bool:
        """Return whether Redis has lost no data since the connection began; else end it."""
        generation = await connection.send(self._scripts.lineage())
        if generation == self._serving.generation:
            return True
        connection.close("the data of Redis are of another generation")
        return False
