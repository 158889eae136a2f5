"""Who a channel is for: everybody, or one client process."""

from __future__ import annotations

from enum import Enum

__all__ = ["CLIENT_PROCESS", "SITE", "Owner", "Scope"]


class Scope(Enum):
    """Who a channel is for. Source: `Eliom_comet.Channel.comet_scope`."""

    SITE = "site"
    CLIENT_PROCESS = "client process"


SITE = Scope.SITE
"""All who know the channel's name."""

CLIENT_PROCESS = Scope.CLIENT_PROCESS
"""The current client process."""


class Owner:
    """A client process, as its channels see it.

    Attributes:
        connections: How many connections to its endpoints are open right now.
    """

    __slots__ = ()

    connections: int
