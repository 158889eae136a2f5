"""Login and logout: a session gets another id and another user, as far as Redis is concerned.

Owns the order of the steps, after each of which a worker may die. Must not know which worker has
connections of the session.
"""

from __future__ import annotations

from asgi_comet.brokers.people import Moved
from asgi_comet.brokers.redis import people_replies as answers
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.entries import Change
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.users import Users

__all__ = ["Moving"]


class Moving:
    """Gives sessions other ids.

    Args:
        people: The scripts of people.
        asking: Runs scripts.
        users: The sessions of users.
    """

    def __init__(self, people: PeopleScripts, asking: Asking, users: Users) -> None:
        self._people = people
        self._asking = asking
        self._users = users

    async def move(self, change: Change) -> tuple[str, ...]:
        """Give a session another id; return its client processes that close.

        A repeated change answers the same.

        Raises:
            Moved: The session has another id by now; nothing was changed.
        """
        session = self._people.keys.session(change.session)
        before = await self._asking.ask(self._people.visit(session))
        if change.user is not None:  # first: an entry without its session does no harm
            await self._users.add(change.user, change.new)
        changed = await self._change(change, before.processes)
        lasts = change.keep or (changed.processes and not changed.closed)
        if change.user is not None and not lasts:
            await self._users.remove(change.user, change.new)
        if before.user is not None:
            await self._users.remove(before.user.decode(), change.session)
        return changed.processes if changed.closed else ()

    async def _change(self, change: Change, processes: tuple[str, ...]) -> answers.Changed:
        keys = self._people.keys
        user = None if change.user is None else change.user.encode()
        while True:
            call = self._people.move(
                keys.session(change.session),
                keys.session(change.new),
                [keys.process(one) for one in processes],
                user=user,
                keep=change.keep,
            )
            answer = await self._asking.ask(call)
            if isinstance(answer, answers.Changed):
                return answer
            if isinstance(answer, answers.Moved):
                if change.user is not None:
                    await self._users.remove(change.user, change.new)
                raise Moved(answer.session)
            processes = answer.processes
