"""What to write instead: for the errors of an application that have one usual cause.

Owns these texts. Must not know requests.
"""

from __future__ import annotations

__all__ = ["advise"]

_SESSION = (
    ". SessionMiddleware has to be outside of CometMiddleware, and the middleware that is added "
    "last is outermost: move the line app.add_middleware(SessionMiddleware, ...) below the line "
    "app.add_middleware(CometMiddleware, ...)"
)


def advise(error: BaseException) -> str:
    """Return the likely way out of an error, to be added to a log line; mostly there is none."""
    text = str(error)
    return _SESSION if "SessionMiddleware must be installed" in text else ""
