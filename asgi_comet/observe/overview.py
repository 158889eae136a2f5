"""The figures of this worker that the dashboard samples, as one value with a JSON form.

Owns which figures those are. All of them are counted already, so a sample costs the same however
many channels and clients there are; families cost one row each. Must not know who samples, nor
other workers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from itertools import islice
from typing import Any

from asgi_comet._runtime.counters import ChannelCounters
from asgi_comet.channels.feed import Feed
from asgi_comet.declare.declarations import Member
from asgi_comet.declare.declared import Declaration
from asgi_comet.node.build import Node
from asgi_comet.observe.journal import Journal

__all__ = [
    "EVENTS",
    "count_channels",
    "count_created",
    "count_here",
    "find_declarations",
    "get_limits",
    "living",
    "slowest",
]

EVENTS = 200  # in one answer, at most
READERS = 1000  # of one channel that are looked at, at most

Answer = dict[str, Any]


def count_here(node: Node, journal: Journal, known: dict[str, int]) -> Answer:
    """Return the figures of this worker, and the events since those that are known.

    Args:
        node: The parts of the Comet.
        journal: The events.
        known: The number of the last known event, by worker.
    """
    counters = node.runtime.counters
    transports = counters.transports.values()
    _note_missed(node, journal)
    acknowledged = zip(*(one.acknowledge.counts for one in transports), strict=True)
    return {
        "worker": journal.worker,
        "name": f"{socket.gethostname()}:{os.getpid()}",
        "active": node.activation.active,
        "timeout": node.activation.timeout,
        "stopping": node.drain.begun,
        "listeners": len(node.fanout.listeners),
        "tabs": len(node.clients),
        "users": node.clients.known_users,
        "channels": len(node.channels),
        "members": sum(len(living(node, one)) for one in find_declarations(node) if one.family),
        "published": sum(one.published for one in counters.channels.values()),
        "delivered": sum(one.delivered for one in transports),
        "acknowledged": [sum(counts) for counts in acknowledged],
        "gaps": counters.missed.total,
        "stalled": counters.stalled,
        "open": {one.name: one.open for one in transports},
        "events": [
            {**one.fields, "at": one.at, "number": one.number}
            for one in journal.since(known.get(journal.worker, 0), EVENTS)
        ],
    }


def _note_missed(node: Node, journal: Journal) -> None:
    counters = node.runtime.counters
    for channel in counters.channels.values():
        for reason, total in channel.gaps.items():
            journal.count("client.missed", total, channel=channel.label, reason=reason)
    for transport in counters.transports.values():
        stalled = transport.disconnections["stalled"]
        journal.count("client.stalled", stalled, transport=transport.name)


def get_limits(node: Node) -> Answer:
    """Return the limits of this worker that its figures are compared with; `None` is no limit."""
    settings = node.settings
    return {
        "tabs": settings.max_processes,
        "channels": settings.max_virtual_channels,
        "members": settings.max_family_channels,
    }


def count_channels(node: Node, journal: Journal, _: object) -> Answer:
    """Return a row for each declaration in this worker, and one for all channels besides."""
    rows = [_declaration(node, one) for one in find_declarations(node)]
    created = _row(node.runtime.counters.created, "", count_created(node))
    return {"worker": journal.worker, "rows": [*rows, created]}


def count_created(node: Node) -> int:
    """Return how many channels of the site are not declared."""
    declared = sum(len(living(node, one)) for one in find_declarations(node) if not one.own)
    return len(node.channels.site.directory) - declared


def find_declarations(node: Node) -> list[Declaration]:
    """Return all declarations."""
    return [one for one in node.channels.reserved.owners() if isinstance(one, Declaration)]


def living(node: Node, declared: Declaration) -> Mapping[Member, object]:
    """Return the live channels of a declaration in this worker."""
    return node.declarations.live.get(declared, {})


def _declaration(node: Node, declared: Declaration) -> Answer:
    name = f"~{declared.name}" if declared.own else declared.name
    counts, live = node.runtime.counters.of(name), len(living(node, declared))
    return _row(counts, declared.kind.value, live)


def _row(counts: ChannelCounters, kind: str, live: int) -> Answer:
    refused = sum(counts.authorisations.values()) - counts.authorisations["yes"]
    return {
        "name": counts.label,
        "kind": kind,
        "live": live,
        "published": counts.published,
        "gaps": sum(counts.gaps.values()),
        "restarts": counts.restarts,
        "refused": refused,
    }


def slowest(feed: Feed) -> int:
    """Return how many messages the slowest listener of a channel is behind.

    Of a channel with more than `READERS` listeners only the oldest are looked at.
    """
    top, first = feed.top, islice(feed.listeners, READERS)
    return max((top - listener.cursors.get(feed, top) for listener in first), default=0)
