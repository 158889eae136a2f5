"""Reading the headers of an ASGI scope, for which a dictionary per request would be too much."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["content_type", "header", "header_values"]


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of all headers of that (lower-case) name."""
    return [value for key, value in scope["headers"] if key == name]


def content_type(scope: Scope) -> bytes | None:
    """Return the essence of the content type: lower case, without parameters.

    `None` if there is none, or several headers: what is said twice is not said.
    """
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == b"content-type":
            if found is not None:
                return None
            found = value.partition(b";")[0].strip().lower()
    return found
