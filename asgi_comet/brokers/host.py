"""The functions of the worker that a broker may call. Holds no logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from asgi_comet.brokers.logs import Log
from asgi_comet.brokers.people import Limits, PeopleHost
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message

__all__ = ["Host"]


class Host(Protocol):
    """The functions that a broker may call, in the thread of the loop that runs `Broker.run`."""

    @property
    def heartbeat(self) -> float:
        """After how many seconds without a heartbeat the others take a worker for dead."""

    @property
    def digest(self) -> str:
        """Stands for the names that this worker declares."""

    @property
    def limits(self) -> Limits:
        """The bounds of client processes."""

    @property
    def people(self) -> PeopleHost:
        """The sessions and client processes of this worker."""

    def now(self) -> float:
        """Return the time, in seconds."""

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn; dropped without a loop. Thread-safe."""

    def appended(self, log: Log) -> None:
        """Wake the listeners after `Log.append` has added a message. Thread-safe."""

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages to a window, and wake its listeners; see `Log.receive`."""

    def moved(self, log: Log, epoch: str, first: int, began: int) -> Log:
        """Report that the log has another epoch: the readers of the window are told `full`.

        Args:
            log: The window.
            epoch: The new epoch.
            first: The offset of the oldest message in the log, or of the next one if it is empty.
            began: The offset of the newest message when the epoch began: a reader that had all
                messages before goes on from there, and misses nothing.

        Returns:
            The window to fill from now on, which is as after `Log.reset`.
        """

    def cut(self, log: Log, first: int) -> None:
        """Restart the window at `first`: it missed messages that the log no longer holds.

        Readers that lack messages before `first` are told `full`.
        """

    def ended(self, log: Log, reason: str) -> None:
        """Report that the channel has ended: `ended`, `failed`, `full` or `unused`.

        A channel has ended as `unused` if no worker used it, as far as the store could see.
        """

    def owned(self, log: Log, newest: Message | None) -> None:
        """Report that this worker owns the channel, and is to read its source from now on.

        Args:
            log: A log for which the worker has bid.
            newest: The newest message in the log, if there is one.
        """

    def disowned(self, log: Log) -> None:
        """Report that this worker does not own the channel any more, though its bid stands."""

    def in_use(self, log: Log) -> bool:
        """Return whether this worker has used a channel within its linger time."""

    def wanted(self, log: Log, offset: int) -> None:
        """Report that a reader asks for a message of an on-demand channel of this worker."""

    def answer(self, question: str) -> str:
        """Answer a question of a worker; see `Broker.ask_all`."""
