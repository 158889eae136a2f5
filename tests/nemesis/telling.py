"""What a worker writes down of its own publishes."""

from __future__ import annotations

from typing import Any

from asgi_comet import Delivery, Outcome
from asgi_comet.errors import BrokerUnavailable, CometError
from tests.nemesis.history import Journal

ASKED = 10
"""One of so many messages has its outcome awaited."""


class Teller:
    """Writes down what became of messages."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._told = 0

    def note(self, id_: str, outcome: dict[str, Any]) -> None:
        self.journal.write("ok" if "position" in outcome else "fail", id=id_, **outcome)

    async def await_stored(self, id_: str, delivery: Delivery) -> None:
        """Wait until a message is stored, and now and then until a client has it."""
        try:
            self.note(id_, {"position": str(await delivery.stored())})
        except CometError as error:
            self.note(id_, why(error))
            return
        self._told += 1
        if self._told % ASKED == 0:
            outcome = await delivery
            self.journal.write("outcome", id=id_, success=outcome is Outcome.SUCCESS)


def why(error: Exception) -> dict[str, Any]:
    """Tell why a message is not stored; `maybe` if it may be, all the same."""
    maybe = isinstance(error, BrokerUnavailable) and error.maybe_stored
    return {"maybe": maybe, "error": f"{type(error).__name__}: {error}"}
