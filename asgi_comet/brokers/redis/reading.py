"""Reads of a log for one reader, where the window of the worker does not suffice.

Owns where a reader begins, and the messages that the window does not hold. Must not know how a
window is filled, nor how a connection is made.
"""

from __future__ import annotations

from asgi_comet.brokers.logs import Closed, Full, Placed, Unknown
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.holding import Holding
from asgi_comet.brokers.redis.pages import Page
from asgi_comet.brokers.redis.records import keys_of, name_of, reason_of
from asgi_comet.brokers.redis.replies import Gone
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Serving
from asgi_comet.core.messages import Message, Start
from asgi_comet.errors import BrokerUnavailable, ChannelClosed
from asgi_comet.position import Position

__all__ = ["Reading"]


class Reading:
    """Reads parts of logs.

    Args:
        scripts: The scripts.
        serving: The connection.
        holding: Opens channels again.
        following: The windows.
    """

    def __init__(
        self, scripts: Scripts, serving: Serving, holding: Holding, following: Following
    ) -> None:
        self._scripts = scripts
        self._serving = serving
        self._holding = holding
        self._following = following

    async def place(self, log: Window, start: Start) -> Placed | Full | Closed | Unknown:
        """Find where a reader begins; the window then has all messages that Redis has."""
        page = await self._read(log, start, most=0, for_client=True)
        if isinstance(page, Gone):
            return Unknown()
        replica = self._following.find(name_of(log))
        # A window that is followed no more has all messages, unless they could not be read.
        over = page.after == page.top or (replica is None and log.top < page.top)
        if page.closed and over:
            return Closed(reason_of(page.closed))
        if replica is not None and (replica.log.epoch, replica.log.top) != (page.epoch, page.top):
            try:
                await self._following.catch_up(replica)
            except ChannelClosed as error:
                return Closed(error.reason)
        return Full() if page.after is None else Placed(page.after, page.epoch)

    async def recover(self, log: Window, after: int, max_bytes: int) -> list[Message] | None:
        """Read messages that the window does not hold."""
        page = await self._read(log, Position(log.epoch, after), max_bytes=max_bytes)
        if isinstance(page, Gone) or page.after != after or page.epoch != log.epoch:
            return None
        return list(page.run)

    async def _read(
        self, log: Window, start: Start, *, for_client: bool = False, **bounds: int
    ) -> Page | Gone:
        """Read a page; the worker first opens a channel again that Redis has lost."""
        call = self._scripts.follow(
            keys_of(self._scripts.keys, log), start, for_client=for_client, **bounds
        )
        connection = await self._serving.connected()
        page = await connection.send(call)
        if isinstance(page, Gone) and self._holding.reopen(connection, log):
            page = await connection.send(call)
            if isinstance(page, Gone) and self._holding.lasts(log):
                raise BrokerUnavailable(f"channel {log.name!r} cannot be opened again")
        return page
