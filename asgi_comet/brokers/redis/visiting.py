"""The state of sessions and client processes, as the store has it.

Owns that no answer is older than a change of which this worker has heard. Must not know who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from asgi_comet.brokers.people import SessionState, Visited
from asgi_comet.brokers.redis import people_replies as answers
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.entries import Change
from asgi_comet.brokers.redis.heard import Lately
from asgi_comet.brokers.redis.people_scripts import PeopleScripts

__all__ = ["Visiting"]


class Visiting:
    """Asks for sessions and client processes.

    Args:
        people: The scripts of people.
        asking: Runs scripts.
        news: The sessions and client processes that have lately changed, by id.
        note: Takes the state of each session.
        living: Returns the workers that are alive.
    """

    def __init__(
        self,
        people: PeopleScripts,
        asking: Asking,
        news: Lately[Change | None],
        note: Callable[[SessionState], None],
        living: Callable[[], Collection[str]],
    ) -> None:
        self._people = people
        self._asking = asking
        self._news = news
        self._note = note
        self._living = living

    async def visit(self, sessions: Sequence[str], process: str = "") -> Visited:
        """Return the state of sessions and of a client process."""
        while True:
            number = self._news.number
            found, closed = await self._ask(sessions, process)
            names = [process, found.owner, *(one.id for one in found.sessions)]
            if not any(self._news.is_newer(one, number) for one in names):
                break
        if process and not found.owner and not closed:
            await self._asking.check()
        for state in found.sessions:
            self._note(state)
        return found

    async def idle(self, process: str) -> float:
        """Return for how many seconds a client process has had no connection."""
        keys = self._people.keys.process(process)
        _, seconds, _ = await self._asking.ask(self._people.idle(keys, self._living()))
        return seconds

    async def _ask(self, sessions: Sequence[str], process: str) -> tuple[Visited, bool]:
        """Ask in one write, and again for each session that has another id by now.

        Returns the state, and whether Redis has recorded the end of the client process.
        """
        keys = self._people.keys
        owner = [self._people.idle(keys.process(process), self._living())] if process else []
        calls: list[Call[Any]] = [*owner, *map(self._call, sessions)]
        replies = await self._asking.ask_all(calls)
        found = replies[len(owner) :]
        states = [await self._follow(*one) for one in zip(sessions, found, strict=True)]
        session, _, closed = replies[0] if owner else ("", 0.0, False)
        return Visited(tuple(states), session), closed

    def _call(self, session: str) -> Call[answers.Visited]:
        return self._people.visit(self._people.keys.session(session))

    async def _follow(self, session: str, reply: answers.Visited) -> SessionState:
        while reply.heir:
            session = reply.heir
            reply = await self._asking.ask(self._call(session))
        return SessionState(
            id=session,
            user=None if reply.user is None else reply.user.decode(),
            default=reply.default,
            defaults=reply.defaults,
            kept=reply.kept,
            processes=reply.processes,
            followed=reply.followed,
        )
