"""What a channel may be called. Pure."""

from __future__ import annotations

import secrets
import unicodedata

from .errors import InvalidName

__all__ = ["check_name", "check_own_name", "fresh_name"]

NAME_LIMIT = 255  # bytes of UTF-8
RESERVED = frozenset({"open", "error"})  # events that `EventSource` itself dispatches
OWN_RESERVED = frozenset({"comet"})  # channels of a client process that we write ourselves
FIRST_RESERVED = (":", "~")  # our own events, and the channels of a client process


def check_name(name: str) -> str:
    """Return the name if a channel may have it.

    Raises:
        InvalidName: It may not; the text says why.

    Source: semantics.md, "Limits".
    """
    if not isinstance(name, str):
        raise InvalidName(name, f"it is a {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidName(name, "it has a lone surrogate") from error
    if not 1 <= size <= NAME_LIMIT:
        raise InvalidName(name, f"it has {size} bytes")
    if name.startswith(FIRST_RESERVED) or name in RESERVED:
        raise InvalidName(name, "it is reserved")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidName(name, "it has a control character")
    return name


def check_own_name(name: str) -> str:
    """Return the name if the application may give it to a channel of a client process.

    Raises:
        InvalidName: It may not; the text says why.
    """
    if name in OWN_RESERVED:
        raise InvalidName(name, f"~{name} is reserved for what we tell a client process ourselves")
    return check_name(name)


def fresh_name() -> str:
    """Make an identifier of 144 random bits, which nobody can guess."""
    return secrets.token_urlsafe(18)
