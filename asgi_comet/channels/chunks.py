"""Encoded messages of a channel, cached for the next listener at the same place.

Owns the size of the cache: one run, or a few answers. Not thread-safe: the feed holds its lock.
"""

from __future__ import annotations

from asgi_comet.core.runs import Chunk, Encoder

__all__ = ["Chunks", "Place"]

KEPT = 4  # answers of maximal size to keep

Place = tuple[Encoder, int, int | None]
"""The encoder, the offset before the first message, and the limit in bytes."""


class Chunks:
    """Encoded runs of one channel; dropped on publish and with the last listener.

    Attributes:
        kept: The runs, by place.
        size: The bytes of all runs.
    """

    __slots__ = ("kept", "size")

    def __init__(self) -> None:
        self.kept: dict[Place, Chunk] = {}
        self.size: int = 0

    def find(self, place: Place) -> Chunk | None:
        """Return the encoded run of a place, if kept."""
        return self.kept.get(place)

    def keep(self, place: Place, chunk: Chunk) -> None:
        """Keep the encoded run of a place."""
        # Without a limit, the size of an answer is unknown.
        if self.size + chunk.size > KEPT * (place[2] or 0):
            self.forget()
        self.kept[place] = chunk
        self.size += chunk.size

    def forget(self) -> None:
        """Drop all runs."""
        self.kept.clear()
        self.size = 0
