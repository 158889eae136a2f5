"""The rules for channel names. Pure."""

from __future__ import annotations

import secrets
import unicodedata

from asgi_comet.errors import BadRequest, InvalidName

__all__ = ["NAME_LIMIT", "check_asked", "check_name", "check_own_name", "fresh_name", "is_name"]

NAME_LIMIT = 255  # bytes of UTF-8
UTF8_MOST = 4  # bytes of one character
RESERVED = frozenset({"open", "error"})  # events that `EventSource` itself dispatches
OWN_RESERVED = frozenset(
    {"comet"}
)  # channels of a client process that the server itself publishes on
FIRST_RESERVED = (":", "~")  # events of the protocol, and channels of a client process
PRESENCE = "@"  # first character of the presence of a channel


def check_name(name: str) -> str:
    """Return a name if it is valid for a channel.

    Raises:
        InvalidName: The name is not valid; the text gives the reason.

    Source: docs/semantics.md#names.
    """
    if not isinstance(name, str):
        raise InvalidName(name, f"it is of type {type(name).__name__}")
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
    """Return a name if it is valid for a channel of a client process.

    Raises:
        InvalidName: The name is not valid; the text gives the reason.
    """
    if name in OWN_RESERVED:
        raise InvalidName(name, f"~{name} is reserved for what we tell a client process ourselves")
    return check_name(name)


def is_name(name: str) -> bool:
    """Return whether a name is valid for a channel."""
    try:
        check_name(name)
    except InvalidName:
        return False
    return True


def check_asked(name: str) -> str:
    """Return a name sent by a client if it is short enough, not counting a `~`.

    Raises:
        BadRequest: The name is longer than any valid name.
    """
    if len(name) > NAME_LIMIT // UTF8_MOST:  # a shorter name fits without measuring
        size = len(name.removeprefix("~").encode(errors="replace"))
        if size > NAME_LIMIT:
            raise BadRequest(
                f"expected channel names of at most {NAME_LIMIT} bytes, got {name!r:.80}, "
                f"which has {size}"
            )
    return name


def fresh_name() -> str:
    """Make an identifier of 144 random bits, which cannot be guessed."""
    return secrets.token_urlsafe(18)
