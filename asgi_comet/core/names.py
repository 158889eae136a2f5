"""What a channel may be called. Pure."""

from __future__ import annotations

import secrets
import unicodedata

from asgi_comet.errors import BadRequest, InvalidName

__all__ = ["NAME_LIMIT", "check_asked", "check_name", "check_own_name", "fresh_name", "is_name"]

NAME_LIMIT = 255  # bytes of UTF-8
UTF8_MOST = 4  # bytes of one character
RESERVED = frozenset({"open", "error"})  # events that `EventSource` itself dispatches
OWN_RESERVED = frozenset({"comet"})  # channels of a client process that we write ourselves
FIRST_RESERVED = (":", "~")  # our own events, and the channels of a client process
PRESENCE = "@"  # as a first character: the presence of a channel


def check_name(name: str) -> str:
    """Return the name if a channel may have it.

    Raises:
        InvalidName: It may not; the text says why.

    Source: docs/semantics.md#names.
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
    if name.startswith(PRESENCE):
        raise InvalidName(name, "a name that begins with '@' is kept for presence")
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


def is_name(name: str) -> bool:
    """Tell whether a channel may have a name."""
    try:
        check_name(name)
    except InvalidName:
        return False
    return True


def check_asked(name: str) -> str:
    """Return a name that a client sent if it is short enough to be looked at, a `~` not counted.

    Raises:
        BadRequest: The name is longer than that of any channel.
    """
    if len(name) > NAME_LIMIT // UTF8_MOST:  # else it need not be encoded to know its size
        size = len(name.removeprefix("~").encode(errors="replace"))
        if size > NAME_LIMIT:
            raise BadRequest(
                f"expected channel names of at most {NAME_LIMIT} bytes, got {name!r:.80}, "
                f"which has {size}"
            )
    return name


def fresh_name() -> str:
    """Make an identifier of 144 random bits, which nobody can guess."""
    return secrets.token_urlsafe(18)
