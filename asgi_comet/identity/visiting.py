"""Questions to the store, of which the answer may be out of date when it comes.

Owns which answers are void: those to a question about a session or a client process that has
changed meanwhile, as this worker was told. Must not know what is done with an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from asgi_comet.brokers.people import People, Visited
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Visits"]

TRIES = 10  # questions until the client is told to come back


class _Question:
    """A question that is not answered yet, and the ids of what has changed since."""

    __slots__ = ("heard",)

    def __init__(self) -> None:
        self.heard: set[str] = set()


class Visits:
    """The questions of this worker.

    Args:
        people: Returns the store.
    """

    def __init__(self, people: Callable[[], People]) -> None:
        self._people = people
        self._open: set[_Question] = set()

    def hear(self, *ids: str) -> None:
        """Take note that sessions or client processes have changed."""
        for question in self._open:
            question.heard.update(ids)

    async def ask(self, sessions: Sequence[str], process: str = "") -> Visited:
        """Return the state of sessions, and of a client process; see `People.visit`.

        Raises:
            BrokerUnavailable: The store cannot be reached, or there are changes all the time.
        """
        for _ in range(TRIES):
            question = _Question()
            self._open.add(question)
            try:
                visited = await self._people().visit(sessions, process)
            finally:
                self._open.discard(question)
            if not question.heard or question.heard.isdisjoint(_ids(visited, sessions, process)):
                return visited
        raise BrokerUnavailable("the session of the request changes all the time")


def _ids(visited: Visited, sessions: Sequence[str], process: str) -> Iterable[str]:
    yield process
    yield from sessions
    for state in visited.sessions:
        yield state.id
        yield from state.processes
