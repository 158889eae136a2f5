"""The kinds of channel and their differences.

Owns these differences: the rest of the package reads the attributes of a kind and compares no
kinds.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Kind"]


class Kind(Enum):
    """The rules by which a channel is read.

    Attributes:
        only_last: Whether only the newest message counts: older ones are never missed.
        one_reader: Whether only one client reads, and its acknowledgement drops messages.
        may_fill: Whether the channel ends `full` rather than drop a message that was never sent.
        on_demand: Whether the source is read only as far as the client's acknowledgements allow.

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
        """Make a kind whose value is only its name."""
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
