"""Keys of people that other keys have left behind, because Redis has lost single keys.

Owns how far this worker has looked through the keys of the database, a few at a time. Must not know
when to look, nor which worker looks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from asgi_comet.brokers.people import Moved, Visited
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.closing import Ending
from asgi_comet.brokers.redis.connection import NOT_NOW, ReplyError
from asgi_comet.brokers.redis.foreign import passing_over
from asgi_comet.brokers.redis.stock_scripts import OWN, StockScripts
from asgi_comet.log_events import event

__all__ = ["Stocktaking"]

_logger = logging.getLogger(__name__)

PASSING = NOT_NOW | {"BUSY"}  # errors that end by themselves
REFUSED = (
    "%s. SCAN must be allowed, for this worker uses it to find what tabs leave behind when Redis "
    "loses single keys: give the user the right +scan, take SCAN out of rename-command, and start "
    "the workers again; until then nothing removes these keys"
)


class Stocktaking:
    """Finds what lacks a deadline, a record, a list that names it, or its client process.

    Args:
        scripts: The scripts.
        asking: Runs scripts.
        ending: Closes client processes.
    """

    def __init__(self, scripts: StockScripts, asking: Asking, ending: Ending) -> None:
        self._scripts = scripts
        self._asking = asking
        self._ending = ending
        self._cursor = "0"
        self._refused = False
        self._looks: dict[str, Callable[[str], Awaitable[object]]] = {
            "p": self._look_at_process,
            "s": self._look_at_session,
            "sp": self._look_at_list,
            "pc": self._look_at_rest,
            "pk": self._look_at_rest,
            "reg": self._look_at_rest,
            OWN: self._look_at_channel,
        }

    async def go_on(self) -> None:
        """Look at some more keys; after the last one, begin anew. Once refused, never again."""
        if self._refused:
            return
        try:
            self._cursor, found = await self._asking.ask(self._scripts.scan(self._cursor))
        except ReplyError as error:
            if error.code in PASSING:
                raise
            self._refused = True
            _logger.warning(
                REFUSED, error.reason, extra=event("setup.advised", reason=error.reason)
            )
            return
        for one in found:
            await self._look(*one)

    async def _look(self, what: str, id_: str) -> None:
        with passing_over(self._scripts.keys.partition_of(id_.removeprefix("~"))):
            await self._looks[what](id_)

    async def _look_at_process(self, process: str) -> None:
        if not await self.close_unlisted(process):
            await self._asking.ask(self._scripts.stock(process))

    async def _look_at_session(self, session: str) -> None:
        await self._asking.ask(self._scripts.stock_session(session))

    async def _look_at_list(self, session: str) -> None:
        """Close the client processes of a session whose records are lost."""
        for process in await self._asking.ask(self._scripts.listed(session)):
            await self.close_lost(session, process)

    async def close_lost(self, session: str, process: str) -> bool:
        """Close a client process that its session has listed, if its record is lost.

        Returns whether that was so.
        """
        scripts = self._scripts
        # In this order: a process that closes at this moment is no longer listed.
        calls: list[Call[Any]] = [scripts.owner(process), scripts.is_listed(session, process)]
        owner, listed = await self._asking.ask_all(calls)
        if owner or not listed:
            return False
        await self._close(session, process)
        return True

    async def close_half_lost(self, found: Visited, process: str) -> bool:
        """Close a client process of which Redis has lost the record, or the list that names it.

        Returns whether that was so.
        """
        listing = [one.id for one in found.sessions if process in one.processes]
        if found.owner:
            return found.owner not in listing and await self.close_unlisted(process)
        return bool(listing) and await self.close_lost(listing[0], process)

    async def close_unlisted(self, process: str) -> bool:
        """Close a client process that its session does not list, because the list is lost.

        A logout would not find the process, and may not have found it already. Returns whether that
        was so.
        """
        session = await self._asking.ask(self._scripts.owner(process))
        # Not before: a process that moves at this moment is not closed under its former session.
        if not session or await self._asking.ask(self._scripts.is_listed(session, process)):
            return False
        await self._close(session, process)
        return True

    async def _look_at_rest(self, process: str) -> None:
        """Close a client process whose record is lost, and whose session is not known."""
        if not await self._asking.ask(self._scripts.exists(process)):
            await self._close(process, process)

    async def _look_at_channel(self, name: str) -> None:
        await self._asking.ask(self._scripts.stock_channel(name))

    async def _close(self, session: str, process: str) -> None:
        with suppress(Moved):  # the process is there again, of a session with another id
            await self._ending.close(session, process)
