"""Advice for errors of an application that have one usual cause.

Owns the texts. Must not know requests.
"""

from __future__ import annotations

__all__ = ["advise"]

_SESSION = (
    ". SessionMiddleware has to be outside of CometMiddleware, and the middleware that is added "
    "last is outermost: move the line app.add_middleware(SessionMiddleware, ...) below the line "
    "app.add_middleware(CometMiddleware, ...)"
)


def advise(error: BaseException) -> str:
    """Return the likely fix of an error, for a log line; empty for most errors."""
    text = str(error)
    return _SESSION if "SessionMiddleware must be installed" in text else ""
