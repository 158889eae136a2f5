"""Where a program goes on after it was restarted.

Owns the file of positions. Must not know connections.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Protocol

__all__ = ["FilePositions", "Positions"]


class Positions(Protocol):
    """Keeps positions for a program that is restarted, for example in its database."""

    def load(self) -> Mapping[str, str]:
        """Return the saved positions by the name of the channel; empty at the first start."""

    def save(self, positions: Mapping[str, str]) -> Awaitable[None] | None:
        """Save positions. Called after each message that the program has dealt with.

        Args:
            positions: How far the program is, by the name of the channel: of all channels followed.
        """


class FilePositions:
    """Keeps positions in a file, of one call of `follow`.

    A program that is killed between the end of a message's body and the saving gets that message
    again: every message at least once. For exactly once, let `save` commit to the database that the
    body writes to.

    Args:
        path: A JSON file; its folder must exist. It is replaced as a whole, so it is never half
            written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)

    def load(self) -> dict[str, str]:
        """Return the saved positions; none if there is no file.

        Raises:
            ValueError: The file holds something else.
            OSError: The file cannot be read.
        """
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(at, str) for at in found.values()):
            raise ValueError(
                f'expected positions like {{"news": "k3x9Qp.57"}} in {self.path}, got '
                f"{text!r:.80}; if they are not needed any more, remove the file"
            )
        return found

    def save(self, positions: Mapping[str, str]) -> None:
        """Save positions.

        Raises:
            OSError: The file cannot be written.
        """
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps(dict(positions)))
        new.replace(self.path)
