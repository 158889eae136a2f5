"""Reading and writing the one cookie there is.

Owns its name and attributes. Must not know what its value means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from starlette.types import Scope

__all__ = ["COOKIE_AGE", "Cookie", "SameSite"]

COOKIE_AGE = 30 * 24 * 3600  # seconds a browser keeps it

SameSite = Literal["lax", "strict", "none"]


class Cookie:
    """The cookie that names a session.

    On https it is `Secure` and has the prefix `__Host-`, so that no other host can set it and none
    without TLS sees it.

    Args:
        name: Its name without the prefix.
        same_site: Which sites' pages send it.

    Source: semantics.md, "Identity"; RFC 6265bis, "The __Host- prefix".
    """

    def __init__(self, name: str, same_site: SameSite) -> None:
        self._plain = name.encode()
        self._secure = b"__Host-" + self._plain
        self._same_site = same_site.capitalize()

    def read(self, scope: Scope) -> Iterator[str]:
        """Yield the values that a request has for it, in the order they came."""
        name = self._secure if _is_secure(scope) else self._plain
        for key, header in scope["headers"]:
            if key == b"cookie" and name in header:
                for pair in header.split(b";"):
                    found, _, value = pair.strip(b" \t").partition(b"=")
                    if found == name:
                        yield value.decode("latin-1")

    def write(self, scope: Scope, value: str) -> tuple[bytes, bytes]:
        """Return the header that sets it, in answer to a request."""
        secure = _is_secure(scope)
        name = self._secure if secure else self._plain
        attributes = f"; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite={self._same_site}"
        return b"set-cookie", name + f"={value}{attributes}{'; Secure' * secure}".encode()


def _is_secure(scope: Scope) -> bool:
    return scope.get("scheme") in ("https", "wss")
