"""The channels of a run, by name, and how publishers choose among them."""

from __future__ import annotations

import random
from collections.abc import Iterator

SIZE = 200  # messages that a channel holds
ROOM = "room:"

SITES = [f"site-{number}" for number in range(8)]
NEWEST = [f"newest-{number}" for number in range(3)]
MEMBERS = [f"{ROOM}{number}" for number in range(4)]
SOURCES = [f"source-{number}" for number in range(4)]
FAILING = SOURCES[0]
"""A source that fails now and then."""

KINDS = {"site": SITES, "newest": NEWEST, "member": MEMBERS, "source": SOURCES}


def channels(kinds: list[str]) -> dict[str, dict[str, object]]:
    """Return the channels of some kinds, as the history tells them."""
    return {
        name: {"kind": kind, "size": 1 if kind == "newest" else SIZE}
        for kind in kinds
        for name in KINDS[kind]
    }


def burst(
    publisher: str, numbers: Iterator[int], kinds: list[str], chance: random.Random
) -> tuple[str, list[str]]:
    """Choose a channel, and the ids of what is published on it at once."""
    written = [name for kind in kinds if kind != "source" for name in KINDS[kind]]
    count = chance.choice([1, 1, 2, 5])
    return chance.choice(written), [f"{publisher}:{next(numbers)}" for _ in range(count)]


def choose(kinds: list[str], chance: random.Random) -> list[str]:
    """Choose what a client follows."""
    return [
        name for kind in kinds for name in chance.sample(KINDS[kind], 3 if kind == "site" else 1)
    ]
