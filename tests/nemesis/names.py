"""The channels of a run, by name, and how publishers choose among them."""

from __future__ import annotations

import random
from collections.abc import Iterator

SIZE = 200  # messages that a channel holds
ROOM = "room:"

SITES = [f"site-{number}" for number in range(40)]
NEWEST = [f"newest-{number}" for number in range(3)]
MEMBERS = [f"{ROOM}{number}" for number in range(4)]
SOURCES = [f"source-{number}" for number in range(4)]
GUARDED = ["guarded"]
FAILING = SOURCES[0]
"""A source that fails now and then."""

KINDS = {
    "site": SITES,
    "newest": NEWEST,
    "member": MEMBERS,
    "source": SOURCES,
    "guarded": GUARDED,
}

OWN = {"own0": 1000, "own1": SIZE}
"""The channels of a page that the application writes to, and how many messages each holds."""

NOTIFIERS = [f"note{number}" for number in range(5)]
TOPICS = [f"topic-{number}" for number in range(4)]
"""The keys of each notifier."""

FEED = "feed"  # a declared channel of a page
STEPS = "steps"  # the same, read on demand
DECLARED = (FEED, STEPS)

ADMIN = "nemesis-" * 4
"""The credential of the operator."""

PROCESS_TIMEOUT = 40.0  # seconds until a page without a connection is closed
NEVER_CONNECTED = 30.0  # the same for one that never had a connection


def channels(kinds: list[str]) -> dict[str, dict[str, object]]:
    """Return the channels of some kinds, as the history tells them."""
    return {
        name: {"kind": kind, "size": 1 if kind == "newest" else SIZE}
        for kind in kinds
        for name in KINDS[kind]
    }


def own_channels(process: str) -> dict[str, dict[str, object]]:
    """Return the channels of a page, as the history tells them."""
    own = {name: {"kind": "own", "size": size} for name, size in OWN.items()}
    notes = {name: {"kind": "notes", "size": 1000} for name in NOTIFIERS}
    declared = {name: {"kind": "declared", "size": SIZE} for name in DECLARED}
    return {told(process, f"~{name}"): of for name, of in {**own, **notes, **declared}.items()}


def told(process: str, name: str) -> str:
    """Return what the history calls a channel, by the name that a client uses."""
    return f"{process}{name}" if name.startswith("~") else name


def process_of(channel: str) -> str:
    """Return the process of a channel in the history; `""` for one of the site."""
    return channel.partition("~")[0] if "~" in channel else ""


def burst(
    publisher: str, numbers: Iterator[int], kinds: list[str], chance: random.Random
) -> tuple[str, list[str]]:
    """Choose a channel, and the ids of what is published on it at once."""
    written = [kind for kind in kinds if kind != "source"]
    names = KINDS[chance.choice(written)]
    count = chance.choice([1, 1, 2, 5])
    return chance.choice(names), ids_of(publisher, numbers, count)


def ids_of(publisher: str, numbers: Iterator[int], count: int) -> list[str]:
    return [f"{publisher}:{next(numbers)}" for _ in range(count)]


def choose(kinds: list[str], chance: random.Random) -> list[str]:
    """Choose what a client follows."""
    return [
        name for kind in kinds for name in chance.sample(KINDS[kind], 3 if kind == "site" else 1)
    ]


def choose_own(chance: random.Random, notifiers: bool) -> tuple[list[str], dict[str, str]]:
    """Choose what a page follows of its own; and on which key of which notifier it listens."""
    topics = {chance.choice(NOTIFIERS): chance.choice(TOPICS)} if notifiers else {}
    names = [*OWN, *topics]
    if chance.random() < 0.5:
        names.append(chance.choice(DECLARED))
    return [f"~{name}" for name in names], topics
