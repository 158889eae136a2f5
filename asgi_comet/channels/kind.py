"""The kinds of channel, and what each does in its own way.

Owns these differences: the rest of the package asks a kind for them, and compares no kinds.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Kind"]


class Kind(Enum):
    """How a channel is read.

    Attributes:
        only_last: Whether only the newest message counts: a reader never misses the others.
        one_reader: Whether one client reads it, whose acknowledgement drops messages.
        may_fill: Whether it ends `full` rather than lose a message that was never sent.
        on_demand: Whether its source is read only as far as its reader has acknowledged.

    Source: docs/semantics.md#kinds-of-channel.
    """

    only_last: bool
    one_reader: bool
    may_fill: bool
    on_demand: bool

    def __new__(
        cls,
        name: str,
        only_last: bool = False,
        one_reader: bool = False,
        may_fill: bool = False,
        on_demand: bool = False,
    ) -> Kind:
        """Make a kind, of which only the name is the value."""
        kind = object.__new__(cls)
        kind._value_ = name
        kind.only_last, kind.one_reader = only_last, one_reader
        kind.may_fill, kind.on_demand = may_fill, on_demand
        return kind

    #          name         only_last  one_reader  may_fill  on_demand
    SITE = "site"
    PROCESS = "process", False, True, True
    UNLIMITED = "unlimited", False, True, False, True
    NEWEST = "newest", True
