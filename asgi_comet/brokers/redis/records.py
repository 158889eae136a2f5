"""Conversions between the properties of a channel, its form for the scripts, and its record.

Owns the letters of kinds and traits, and which keys a channel has. Must not know connections or
owners.
"""

from __future__ import annotations

import math

from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.calls import IMPORTED, Log
from asgi_comet.brokers.redis.keys import ChannelKeys, Keys
from asgi_comet.brokers.redis.replies import Record
from asgi_comet.errors import InvalidDeclaration

__all__ = [
    "SITE",
    "check_kind",
    "keys_of",
    "log_of",
    "name_of",
    "reason_of",
    "spec_of",
    "tell_taken",
]

SITE = "SN"  # the kinds of site channels
KINDS = {"site": "S", "newest": "N", "process": "P", "unlimited": "U"}
NAMES = {letter: name for name, letter in KINDS.items()}
LIVES = 30 * 24 * 3600 * 1000  # ms that a record lives without use


def name_of(log: Window) -> str:
    """Return the name of a channel in the scripts: `NAME`, or `~PROCESS~NAME`."""
    name = log.name
    if name[:1] != "~":
        return name
    owner = log.spec.owner
    return name if owner is None else f"~{owner}{name}"


def keys_of(keys: Keys, log: Window) -> ChannelKeys:
    """Return the keys of a channel."""
    owner = log.spec.owner
    return keys.site(log.name) if owner is None else keys.process(owner).channel(log.name[1:])


def check_kind(spec: ChannelSpec) -> None:
    """Check that channels of a kind can be on Redis.

    Raises:
        InvalidDeclaration: They cannot.
    """
    letter = KINDS.get(spec.kind)
    if letter is None or (letter in SITE) is not (spec.owner is None):
        kinds = "kind site or newest" if spec.owner is None else "kind process or unlimited"
        raise InvalidDeclaration(
            spec.name, f"expected a channel of {kinds} on Redis, got kind {spec.kind}"
        )


def log_of(keys: ChannelKeys, spec: ChannelSpec, making: str, history_lives: int | None) -> Log:
    """Return the form of a channel for the scripts.

    Args:
        keys: The keys of the channel.
        spec: The properties of the channel.
        making: The token of its making.
        history_lives: How many milliseconds the messages live without a new one; `None` is as long
            as the record.
    """
    check_kind(spec)
    alone = spec.sourced and not spec.adopt
    site = spec.owner is None  # an own channel lives as long as its client process
    stays = LIVES if history_lives is None else history_lives
    return Log(
        keys=keys,
        kind=KINDS[spec.kind],
        making=making,
        size=spec.size,
        max_bytes=spec.max_bytes,
        max_age=None if spec.max_age is None else math.ceil(spec.max_age * 1000),
        guard=spec.guard,
        lives=LIVES if site else None,
        history_lives=stays if site else None,
        traits="s" * alone + "r" * (spec.reclaim and site),
    )


def spec_of(name: str, record: Record, owner: str | None = None) -> ChannelSpec:
    """Return the properties of a channel that another worker may have made.

    Args:
        name: The name, as clients write it.
        record: The record.
        owner: The client process of an own channel.
    """
    return ChannelSpec(
        name=name,
        owner=owner,
        kind=NAMES[record.kind],
        size=record.size,
        max_bytes=record.max_bytes,
        adopt=record.making == IMPORTED,
        sourced="s" in record.traits,
        reclaim="r" in record.traits,
        max_age=None if record.max_age is None else record.max_age / 1000,
        guard=record.guard,
        closed=reason_of(record.closed) if record.closed else None,
    )


def reason_of(closed: str) -> str:
    """Return the reason of an end as clients are told."""
    return "ended" if closed == "unused" else closed


def tell_taken(spec: ChannelSpec, found: str) -> str:
    """Return why a channel cannot have its name, and the way out.

    Args:
        spec: The properties of the channel.
        found: The kind and the making of the live channel that has the name.
    """
    if not spec.adopt and spec.owner is not None:
        return (
            "another worker has a live channel of this name for the client process; choose another "
            "name, or declare the channel with scope=CLIENT_PROCESS, for all workers have one then"
        )
    if not spec.adopt:
        return (
            "another worker has a live channel of this name; choose another name, or make the "
            "channel when the application is imported, where all workers make one channel"
        )
    kind = NAMES.get(found[:1], "another kind")
    if kind != spec.kind:
        cause = f"of kind {kind}, and this application makes one of kind {spec.kind}"
    else:
        cause = "that a worker made while it ran, and this application makes one when imported"
    return (
        f"Redis has a live channel of this name {cause}; choose another name, or first close the "
        "old channel, in the version of the application that made it"
    )
