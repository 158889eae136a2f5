"""The ids of messages, so that no message is published twice.

Owns the bounds: ten minutes, 10,000 ids for each channel, and 200 characters for an id.
"""

from __future__ import annotations

__all__ = ["Ids", "check_id"]

KEPT = 600.0  # seconds that an id is remembered
LIMIT = 10_000  # ids for each channel; the oldest are dropped first
MOST = 200  # characters of an id


def check_id(id_: str) -> None:
    """Check the id of a message.

    Raises:
        TypeError: The id is not text.
        ValueError: The id is empty, too long, or has no UTF-8 form.
    """
    if not isinstance(id_, str):
        raise TypeError(f"expected id to be text, got {type(id_).__name__}")
    if not 0 < len(id_) <= MOST:
        raise ValueError(f"expected id to have 1 to {MOST} characters, got {len(id_)}")
    try:
        id_.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected id to have a UTF-8 form, got {id_!r}") from None


class Ids:
    """The ids of one channel, and the offsets of their messages. Not thread-safe."""

    __slots__ = ("_offsets",)

    def __init__(self) -> None:
        self._offsets: dict[str, tuple[int, float]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._offsets)

    def find(self, id_: str, now: float) -> int | None:
        """Return the offset of the message published with an id; `None` if the id is new."""
        while self._offsets:
            oldest = next(iter(self._offsets))
            if now - self._offsets[oldest][1] < KEPT:
                break
            del self._offsets[oldest]
        found = self._offsets.get(id_)
        return None if found is None else found[0]

    def note(self, id_: str, offset: int, now: float) -> None:
        """Remember a new id."""
        self._offsets[id_] = offset, now
        if len(self._offsets) > LIMIT:
            del self._offsets[next(iter(self._offsets))]
