"""How much of each limit is used. Owns which limits operators watch."""

from __future__ import annotations

from asgi_comet.node.build import Node

__all__ = ["LIMITS", "used_ratios"]

LIMITS = ("max_processes", "max_family_channels", "max_virtual_channels")


def used_ratios(node: Node) -> dict[str, float]:
    """Return how much of each limit is used, from 0 to 1, by the name of the setting.

    Settings that are `None` are left out. With a broker, client processes and members of families
    count in all workers together, as the limits do. Thread-safe.
    """
    settings, people = node.settings, node.broker.people
    processes = max(len(node.clients), 0 if people is None else people.count)
    members = len(node.declarations.shares) + node.broker.elsewhere
    used = (processes, members, len(node.channels))
    most = (settings.max_processes, settings.max_family_channels, settings.max_virtual_channels)
    return {name: n / limit for name, n, limit in zip(LIMITS, used, most, strict=True) if limit}
