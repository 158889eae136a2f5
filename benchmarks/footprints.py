"""The memory of a server per idle listener."""

from __future__ import annotations

from collections.abc import Iterator

from .peers import get_peers, loaded
from .samples import Footprint

FEW = 100  # listeners that are there first, so that what a server makes once is made


def weigh(subject: str, listeners: int) -> Iterator[Footprint]:
    """Weigh listeners of each peer, of which no two run at a time.

    Args:
        subject: `sse` or `websocket`.
        listeners: How many come.
    """
    for name, peer in get_peers(subject).items():
        with loaded(peer, FEW) as load:
            load.run(FEW, 1)
            before = load.get_memory()
            load.open(listeners)
            idle = load.get_memory()
            load.run(1, 1)
            yield Footprint(subject, name, listeners, before, idle, load.get_memory())
