"""The options of a new channel. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asgi_comet.channels.feed import Authorize
from asgi_comet.protocol.sse import Html

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a new channel.

    Attributes:
        size: How many messages the channel holds; on demand, how far the source is read ahead of
            the client's acknowledgements.
        max_age: How many seconds a site channel holds a message; `None` is no bound.
        name: The name, without the `~` of a process channel; `None` for a fresh identifier.
        linger: How many seconds to keep the channel unused, or after its end; `None` is
            `Settings.linger`.
        type: The type of the values, anything pydantic knows; `None` for any value.
        authorize: Decides which clients may read, at the site; `None` is every client.
        html: Renders values as HTML; `None` for a channel without HTML.
    """

    size: int
    max_age: float | None = None
    name: str | None = None
    linger: float | None = None
    type: Any = None
    authorize: Authorize | None = None
    html: Html | None = None
