"""Plays scenarios: `python -m tests.mutations.playing FOLDER SCENARIO ...`.

Owns the exit codes. The folder is where the package must have come from.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import anyio

import asgi_comet
from tests.mutations import scenarios
from tests.mutations.planting import BROKEN, KEPT

__all__ = ["main"]

VERDICT = "the promise was not kept:"


def main(folder: str, *names: str) -> int:
    """Play scenarios, one after the other; return the exit code."""
    if not Path(asgi_comet.__file__).is_relative_to(folder):
        raise RuntimeError(f"expected the package of {folder}, got {asgi_comet.__file__}")
    logging.disable()  # sources that fail on purpose
    try:
        for name in names:
            anyio.run(getattr(scenarios, name))
    except AssertionError as error:
        if not str(error).startswith(VERDICT):
            raise
        print(str(error).removeprefix(VERDICT).strip())
        return BROKEN
    return KEPT


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
