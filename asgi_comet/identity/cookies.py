"""Reading and writing a cookie of ours: of a session, or of an operator who has signed in.

Owns its name and attributes. Must not know what its value means.
"""

from __future__ import annotations

from starlette.types import Scope

from asgi_comet.settings import SameSite

__all__ = ["COOKIE_AGE", "Cookie"]

COOKIE_AGE = 30 * 24 * 3600  # seconds a browser keeps it

VALUES = 4  # values of our name in one request that are looked at
VALUE_LIMIT = 256  # characters of a value; ours are shorter
HEADER_LIMIT = 64 * 1024  # bytes of cookies that are searched, as many as h11 takes of all headers


class Cookie:
    """A signed cookie.

    On https it is `Secure` and has a prefix. With `__Host-`, no other host can set it and none
    without TLS sees it; this prefix needs the path `/`.

    Args:
        name: Its name without the prefix.
        same_site: Which sites' pages send it.
        prefix: The prefix on https.

    Source: docs/wire.md#cookies-and-tokens; RFC 6265bis, "The __Host- prefix".
    """

    def __init__(self, name: str, same_site: SameSite, prefix: str = "__Host-") -> None:
        self._plain = name.encode()
        self._secure = prefix.encode() + self._plain
        self._same_site = same_site.capitalize()

    def read(self, scope: Scope) -> list[str]:
        """Return the values of the cookie in a request, in the order they came.

        At most four, and none over 256 characters: each that is looked at costs the digest of its
        signature.
        """
        name = self._secure if _is_secure(scope) else self._plain
        values: list[str] = []
        left = HEADER_LIMIT
        for key, header in scope["headers"]:
            if key == b"cookie" and name in header:
                for pair in header[:left].split(b";"):
                    found, _, value = pair.strip(b" \t").partition(b"=")
                    if found == name and len(value) <= VALUE_LIMIT:
                        values.append(value.decode("latin-1"))
                        if len(values) == VALUES:
                            return values
                left = max(left - len(header), 0)
        return values

    def write(
        self, scope: Scope, value: str, *, path: str = "/", age: int = COOKIE_AGE
    ) -> tuple[bytes, bytes]:
        """Return the header that sets it, in answer to a request.

        Args:
            scope: The request.
            value: Its value.
            path: A browser sends it with requests below this path only.
            age: How many seconds a browser keeps it; 0 deletes it.
        """
        secure = _is_secure(scope)
        name = self._secure if secure else self._plain
        attributes = f"; Path={path}; Max-Age={age}; HttpOnly; SameSite={self._same_site}"
        return b"set-cookie", name + f"={value}{attributes}{'; Secure' * secure}".encode()


def _is_secure(scope: Scope) -> bool:
    return scope.get("scheme") in ("https", "wss")
