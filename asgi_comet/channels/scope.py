"""The scope of a channel: the site, or one client process."""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum

__all__ = ["CLIENT_PROCESS", "SITE", "Owner", "Scope", "Tab"]


class Scope(Enum):
    """The scope of a channel. Source: `Eliom_comet.Channel.comet_scope`."""

    SITE = "site"
    CLIENT_PROCESS = "client process"


SITE = Scope.SITE
"""Every client that knows the channel's name."""

CLIENT_PROCESS = Scope.CLIENT_PROCESS
"""The current client process."""


class Owner:
    """A client process, as the application sees it of its channels."""

    __slots__ = ()


class Tab(Owner):
    """A client process, as its channels see it.

    Attributes:
        connections: How many connections to its endpoints are open.
    """

    __slots__ = ()

    connections: int

    @abstractmethod
    def hold(self) -> None:
        """Record that this worker keeps state of the client process. Thread-safe; idempotent."""
