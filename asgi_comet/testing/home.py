"""The sessions and client processes of a worker, for tests of brokers."""

from __future__ import annotations

from collections.abc import Callable

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.brokers.people import PeopleHost
from asgi_comet.testing.window import Window

__all__ = ["Home"]


class Home(PeopleHost):
    """The sessions and client processes of a worker, and the reports about them.

    Args:
        changed: Called after each change.
        clock: The clock of the windows.

    Attributes:
        ended: The client processes that have closed, in order.
        farewells: The client processes for which the functions of the application ran here.
        moves: The former id, the present id and the user of each session that has another id.
        readers: The client process and the number of each reader that was replaced.
        events: The events that were sent to all workers.
        gaps: How often changes have passed of which this worker will not hear.
        withheld: The ends of these functions, which the test calls; `None` if each ends at once.
        windows: The windows on own channels, by client process and name.
    """

    def __init__(self, changed: Callable[[], None], clock: Clock) -> None:
        self.ended: list[str] = []
        self.farewells: list[str] = []
        self.withheld: list[Callable[[], None]] | None = None
        self.moves: list[tuple[str, str, str | None]] = []
        self.readers: list[tuple[str, int]] = []
        self.events: list[str] = []
        self.gaps: int = 0
        self.windows: dict[tuple[str, str], Window] = {}
        self._changed = changed
        self._clock = clock

    def closed(self, process: str) -> None:
        """Record that a client process has closed."""
        self.ended.append(process)
        self._changed()

    def moved(self, session: str, new: str, user: str | None) -> None:
        """Record that a session has another id."""
        self.moves.append((session, new, user))
        self._changed()

    def replaced(self, process: str, reader: int) -> None:
        """Record that a connection reads no longer."""
        self.readers.append((process, reader))
        self._changed()

    def window(self, spec: ChannelSpec) -> Window:
        """Return the window on an own channel, made when first needed."""
        key = (spec.owner or "", spec.name)
        known = self.windows.get(key)
        if known is None or (known.closed is not None and spec.closed is None):
            self.windows[key] = Window(spec, self._clock)
        self._changed()
        return self.windows[key]

    def ending(self, process: str, done: Callable[[], None]) -> None:
        """Record that the functions for a closed client process run."""
        self.farewells.append(process)
        if self.withheld is None:
            done()
        else:
            self.withheld.append(done)
        self._changed()

    def told(self, event: str) -> None:
        """Record an event."""
        self.events.append(event)
        self._changed()

    def missed(self) -> None:
        """Record that changes have passed."""
        self.gaps += 1
        self._changed()
