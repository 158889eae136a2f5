"""The sessions of each user, and of all.

Owns the index of users, whose entries may outlive the sessions: every reader checks the entries,
and removes the wrong ones. Must not know how a session gets a user.
"""

from __future__ import annotations

from asgi_comet.brokers.people import SessionState
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.control_scripts import ControlScripts
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.visiting import Visiting

__all__ = ["Users"]

MOST = 200  # sessions in one write


class Users:
    """Finds sessions.

    Args:
        people: The scripts of people.
        control: The scripts of the index.
        asking: Runs scripts.
        visiting: Asks for sessions.
    """

    def __init__(
        self, people: PeopleScripts, control: ControlScripts, asking: Asking, visiting: Visiting
    ) -> None:
        self._people = people
        self._control = control
        self._asking = asking
        self._visiting = visiting

    async def add(self, user: str, session: str) -> None:
        """Add a session to those of a user, and look at some others."""
        some = await self._asking.ask(self._control.index(user.encode(), session))
        await self._read(user, [one for one in some if one != session])

    async def remove(self, user: str, session: str) -> None:
        """Remove a session from those of a user."""
        await self._asking.ask(self._control.unindex(user.encode(), [session], 0))

    async def find(self, user: str) -> list[SessionState]:
        """Return the sessions of a user that have an open client process."""
        found = await self._asking.ask(self._control.indexed(user.encode()))
        return await self._read(user, list(found))

    async def find_all(self) -> list[SessionState]:
        """Return all sessions that have an open client process."""
        sessions: dict[str, None] = {}
        cursors = dict.fromkeys(range(self._people.keys.partitions), "0")
        while cursors:
            calls = [self._people.scan(*one) for one in cursors.items()]
            parts = await self._asking.ask_all(calls)
            for _, processes in parts:
                sessions.update(dict.fromkeys(await self._find_owners(processes)))
            ends = zip(list(cursors), parts, strict=True)
            cursors = {partition: next_ for partition, (next_, _) in ends if next_ != "0"}
        sessions.pop("", None)
        return _with_processes(await self._visit(list(sessions)))

    async def _find_owners(self, processes: tuple[str, ...]) -> list[str]:
        keys = self._people.keys
        return await self._asking.ask_all([self._people.owner(keys.process(p)) for p in processes])

    async def _read(self, user: str, sessions: list[str]) -> list[SessionState]:
        """Return those of some sessions that are the user's, and remove others from the index."""
        states = await self._visit(sessions)
        wrong = [s for s, state in zip(sessions, states, strict=True) if state.user != user]
        if wrong:
            await self._asking.ask(self._control.unindex(user.encode(), wrong))
        return _with_processes([state for state in states if state.user == user])

    async def _visit(self, sessions: list[str]) -> list[SessionState]:
        found: list[SessionState] = []
        for begin in range(0, len(sessions), MOST):
            found += (await self._visiting.visit(sessions[begin : begin + MOST])).sessions
        return found


def _with_processes(states: list[SessionState]) -> list[SessionState]:
    return list({state.id: state for state in states if state.processes}.values())
