"""What was encoded of a channel, kept for the next listener at the same place.

Owns how much is kept: at most one run, or a few answers. Not thread-safe: the feed holds its lock.
"""

from __future__ import annotations

from asgi_comet.core.runs import Encoder, Rendered

__all__ = ["Chunks", "Place"]

KEPT = 4  # answers of the greatest size that are kept

Place = tuple[Encoder, int, int | None]
"""How messages are written, the offset before the first one, and how many bytes may be written."""


class Chunks:
    """Encoded runs of one channel; forgotten on publish and with the last listener.

    Attributes:
        kept: The runs, by place.
        size: How many bytes they have.
    """

    __slots__ = ("kept", "size")

    def __init__(self) -> None:
        self.kept: dict[Place, Rendered] = {}
        self.size: int = 0

    def find(self, place: Place) -> Rendered | None:
        """Return what was encoded for a place."""
        return self.kept.get(place)

    def keep(self, place: Place, rendered: Rendered) -> None:
        """Keep what was encoded for a place."""
        # Without a limit there is no telling how much an answer has.
        if self.size + rendered.size > KEPT * (place[2] or 0):
            self.forget()
        self.kept[place] = rendered
        self.size += rendered.size

    def forget(self) -> None:
        """Forget all."""
        self.kept.clear()
        self.size = 0
