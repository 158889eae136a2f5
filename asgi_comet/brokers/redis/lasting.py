"""Events that workers are told when they begin, because their effect lasts.

Owns that a worker that comes later, or was away, has the newest event of each name; and that these
outlive a loss of the data of Redis. Must not know what an event changes.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_comet.brokers.redis.calls import fresh
from asgi_comet.brokers.redis.control_scripts import ControlScripts, Row
from asgi_comet.brokers.redis.entries import Told, write_entry
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.serving import Beginning

__all__ = ["Lasting"]


class Lasting:
    """The newest event of each name.

    Args:
        scripts: The scripts.
        heartbeat: Has the id of this worker.
        tell: Tells this worker of an event.
    """

    def __init__(
        self, scripts: ControlScripts, heartbeat: Heartbeat, tell: Callable[[str], None]
    ) -> None:
        self._scripts = scripts
        self._heartbeat = heartbeat
        self._tell = tell
        self._known: dict[str, str] = {}

    def hear(self, told: Told) -> None:
        """Remember an event of the control log."""
        if told.lasting:
            self._known[told.lasting] = told.event

    async def begin(self, beginning: Beginning) -> None:
        """Tell this worker of what is new; write again what Redis has lost."""
        connection = beginning.connection
        found = await connection.send(self._scripts.lasting())
        for name, event in found.items():
            if self._known.get(name) != event:
                self._known[name] = event
                self._tell(event)
        for name, event in self._known.items():
            if name not in found:
                row = Row(0, fresh(), self._heartbeat.worker, write_entry(Told(event, name)))
                await connection.send(self._scripts.tell_all(row, lasting=name, event=event))
