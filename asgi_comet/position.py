"""A place in a channel.

Owns the text form of a position. Must not know any other module: errors have positions, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["POSITION", "Position"]

POSITION: re.Pattern[str] = re.compile(r"([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a channel. Clients treat its text as opaque and send it back.

    Attributes:
        epoch: The incarnation of the channel: 1 to 32 of `A-Z a-z 0-9 _ -`.
        offset: 1, 2, 3 …; 0 is before the first message. At most 16 digits.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse `epoch.offset`.

        Raises:
            ValueError: `text` is anything else.
        """
        found = POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"expected a position like 'k3x9Qp.57', got {text!r:.80}")
        return cls(found[1], int(found[2]))
