"""The end of client processes: both phases, by any worker.

Owns the order of the second phase, which any worker may begin again. Must not know why a client
process closes, nor the connections of this worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from asgi_comet.brokers.people import Moved
from asgi_comet.brokers.redis import people_replies as answers
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.audience_scripts import SEPARATOR, split
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.control_scripts import ControlScripts
from asgi_comet.brokers.redis.farewells import Farewells
from asgi_comet.brokers.redis.people_scripts import PeopleScripts

__all__ = ["Ending"]


class Ending:
    """Closes client processes.

    Args:
        people: The scripts of people.
        control: The scripts of the control log.
        asking: Runs scripts.
        on_closed: Called with each client process that this worker has closed.
        farewells: Run the functions of the application.
        worker: Returns the id of this worker.
    """

    def __init__(
        self,
        people: PeopleScripts,
        control: ControlScripts,
        asking: Asking,
        on_closed: Callable[[str], None],
        farewells: Farewells,
        worker: Callable[[], str],
    ) -> None:
        self._people = people
        self._control = control
        self._asking = asking
        self._on_closed = on_closed
        self._farewells = farewells
        self._worker = worker

    async def close(
        self, session: str, process: str, *, if_late: bool = False, resumes: bool = False
    ) -> None:
        """Close a client process, unless it has closed.

        Args:
            session: The session.
            process: The client process.
            if_late: Whether to close the process only if its deadline is over.
            resumes: Whether to do what another worker has begun and not finished.

        Raises:
            Moved: The process is of another session.
        """
        keys = self._people.keys
        call = self._people.close(
            keys.session(session),
            keys.process(process),
            self._worker(),
            if_late=if_late,
            resumes=resumes,
        )
        answer = await self._asking.ask(call)
        if isinstance(answer, answers.Moved):
            raise Moved(answer.session)
        if isinstance(answer, answers.Closing):
            await self._finish(process, answer)

    async def close_all(self, session: str, processes: tuple[str, ...]) -> None:
        """Finish the end of client processes whose first phase is done."""
        await asyncio.gather(*(self.close(session, one) for one in processes))

    async def _finish(self, process: str, closing: answers.Closing) -> None:
        """Run the second phase, in one write: tell the workers, then clean up."""
        mine = closing.mine and self._farewells.take(process)
        with ExitStack() as failed:
            if mine:
                failed.callback(self._farewells.give_back, process)
            await self._asking.ask_all(list(self._list_rest(process, closing)))
            failed.pop_all()
        self._on_closed(process)
        if mine:
            self._farewells.begin(process)

    def _list_rest(self, process: str, closing: answers.Closing) -> Iterator[Call[Any]]:
        keys = self._people.keys
        for worker in closing.workers:
            yield self._control.tell_closed(process, worker)
        for audience in closing.audiences:
            notifier, key = split(audience.decode().removeprefix(SEPARATOR))
            yield Call(("ZREM", keys.listeners(notifier, key), process), int)
        if closing.user is not None and closing.kept:
            yield self._control.index(closing.user, closing.session)
        elif closing.user is not None:
            yield self._control.unindex(closing.user, [closing.session], 0)
        found = keys.process(process)
        yield self._people.clear(found, [found.channel(name) for name in closing.channels])
