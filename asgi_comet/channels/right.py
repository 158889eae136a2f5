"""The right of this worker to read the source of a channel.

Owns whether a source may be read now: exactly one worker reads each source. Must not know how
workers agree, nor how a source is read. Used only in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from asgi_comet.core.messages import Message

__all__ = ["Right"]


class Right:
    """Whether this worker may read the source of one channel.

    Args:
        lost: Called when the right is taken, to close the source.
        continues: Whether the source goes on from the newest message.

    Attributes:
        held: Whether the source may be read now.
        taken: Whether the right was taken since the source was opened; the reader resets it.
        newest: The newest message of the channel when the right was given, if there was one.
    """

    __slots__ = ("_changed", "_lost", "cancelled", "continues", "held", "newest", "taken")

    def __init__(self, lost: Callable[[], None], *, continues: bool = False) -> None:
        self.continues: bool = continues
        self.held: bool = False
        self.taken: bool = False
        self.cancelled: bool = False
        self.newest: Message | None = None
        self._lost = lost
        self._changed = anyio.Event()

    async def wait(self) -> bool:
        """Wait until the source may be read.

        Returns:
            Whether the source may be read; `False` once the right was cancelled.
        """
        while not self.held and not self.cancelled:
            self._changed = anyio.Event()
            await self._changed.wait()
        return not self.cancelled

    def give(self, newest: Message | None) -> None:
        """Allow to read the source."""
        self.held, self.newest = True, newest
        self._changed.set()

    def take(self) -> None:
        """Forbid to read the source. Idempotent."""
        if self.held:
            self.held, self.taken = False, True
            self._lost()

    def cancel(self) -> None:
        """End the wait for good. Idempotent."""
        self.cancelled = True
        self._lost = _nothing  # breaks a reference cycle
        self._changed.set()


def _nothing() -> None:
    """Do nothing: the source has been stopped."""
