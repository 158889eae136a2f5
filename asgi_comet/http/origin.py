"""The origin rule: which pages may send requests. One function for every transport and admin.

Owns the comparison of `Origin` and `Sec-Fetch-Site` with the target of the request. Must not know
the purpose of a request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from starlette.types import Scope

from asgi_comet.http.headers import Headers
from asgi_comet.log_events import event

__all__ = ["PREFLIGHT", "Origin", "OriginRule", "parse_origin"]

_logger = logging.getLogger(__name__)

PORTS = {"http": 80, "https": 443}
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

# A name or an IPv6 address, and a port. `urlsplit` is too lax: it parses `[::1].evil.com` as `::1`.
_ORIGIN = re.compile(
    r"(https?)://([a-z0-9._-]{1,255}|\[[0-9a-f:.]{1,45}\])(?::([1-9][0-9]{0,4}))?",
    re.IGNORECASE | re.ASCII,
)
_TOKEN = re.compile(r"(/p/[^/]{,6})[^/]*")  # the token of a client process in a path
_PORT_LIMIT = 65535

_CORS = (
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", b"retry-after"),
    (b"vary", b"Origin"),
)

PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"authorization, comet-process, content-type, last-event-id",
    ),
    (b"access-control-max-age", b"600"),
)
"""The headers of the answer to a preflight request of a browser."""

_REMEDY = (
    "; if that is a page of this application, have the proxy pass the header Host on, "
    "or say allowed_origins=[%r]"
)

Origin = tuple[str, str, int]  # scheme, host, port


def parse_origin(text: str) -> Origin | None:
    """Parse exactly `scheme://host[:port]`; `None` for any other text."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host = found[1].lower(), found[2].lower().strip("[]")
    port = int(found[3]) if found[3] else PORTS[scheme]
    return (scheme, host, port) if port <= _PORT_LIMIT else None


class OriginRule:
    """Decides whether the page that sent a request may do so.

    Args:
        allowed: Origins allowed besides the server's own, like `https://app.example.com`.

    Raises:
        ValueError: A text is not an origin.
        TypeError: `allowed` is one text instead of a list.

    Source: docs/wire.md#origin.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed: set[Origin] = set()
        if isinstance(allowed, str):
            raise TypeError(f"expected allowed_origins to be a list of origins, got {allowed!r}")
        for text in allowed:
            origin = parse_origin(text)
            if origin is None:
                raise ValueError(
                    f"expected an allowed origin like 'https://app.example.com', got {text!r}"
                )
            self._allowed.add(origin)

    def check(self, scope: Scope, headers: Headers) -> Sequence[tuple[bytes, bytes]] | None:
        """Check the origin of a request.

        Args:
            scope: The request.
            headers: The headers of the request.

        Returns:
            The headers to add to the answer, so that a page of an allowed origin can read it; none
            for a page of the server's own origin. `None` refuses the request; the expected origin
            was logged.
        """
        came = headers.get(b"origin")
        if came is None:
            site = headers.get(b"sec-fetch-site")
            if site is None or site in (b"same-origin", b"none"):
                return ()
            _logger.warning(
                "refused %.200r: expected Sec-Fetch-Site same-origin, got %.200r",
                _without_token(scope["path"]),
                site,
                extra=event(
                    "origin.refused",
                    path=_without_token(scope["path"]),
                    reason=site.decode("latin-1"),
                ),
            )
            return None
        expected = self._own(scope, headers.get(b"host", b""))
        origin = parse_origin(came.decode("latin-1"))
        if origin in expected:
            return ()
        if origin in self._allowed:
            return ((b"access-control-allow-origin", came), *_CORS)
        _logger.warning(
            "refused %.200r: expected Origin %s, got %.200r%s",
            _without_token(scope["path"]),
            _spell(expected),
            came,
            "" if origin is None else _REMEDY % came.decode("latin-1"),
            extra=event(
                "origin.refused", path=_without_token(scope["path"]), origin=came.decode("latin-1")
            ),
        )
        return None

    def is_own(self, scope: Scope, headers: Headers) -> bool:
        """Return whether a request proves that a page of the server's own origin sent it.

        Allowed origins do not count, and absence is no proof. A refusal was logged.
        """
        came, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        expected = self._own(scope, headers.get(b"host", b""))
        own = site == b"same-origin"
        if came is not None:
            own = parse_origin(came.decode("latin-1")) in expected
        if not own:
            _logger.warning(
                "refused %.200r: expected Origin %s, or Sec-Fetch-Site same-origin, "
                "got %.200r and %.200r",
                scope["path"],
                _spell(expected),
                came,
                site,
                extra=event(
                    "origin.refused", path=scope["path"], origin=(came or b"").decode("latin-1")
                ),
            )
        return own

    def cors(self, headers: Headers) -> Sequence[tuple[bytes, bytes]]:
        """Return the headers that let a page of an allowed origin read a public file."""
        came = headers.get(b"origin", b"")
        if parse_origin(came.decode("latin-1")) in self._allowed:
            return ((b"access-control-allow-origin", came), *_CORS)
        return ()

    def _own(self, scope: Scope, host: bytes) -> set[Origin]:
        """Return the server's own origins: of the request's scheme, or https behind a TLS proxy."""
        own: set[Origin] = set()
        for scheme in {SCHEMES.get(scope.get("scheme", "http"), "http"), "https"}:
            # Without a port, Host means the default port of the scheme.
            origin = parse_origin(f"{scheme}://{host.decode('latin-1')}")
            if origin is not None:
                own.add(origin)
        return own


def _spell(origins: set[Origin]) -> str:
    return " or ".join(f"{scheme}://{host}:{port}" for scheme, host, port in sorted(origins))


def _without_token(path: str) -> str:
    """Return a path for the log, without the token of a client process in it."""
    return _TOKEN.sub(r"\1…", path)
