"""The origin rule: which pages may talk to us. One function for every transport and for admin.

Owns the comparison of `Origin` and `Sec-Fetch-Site` with where the request went. Must not know
what the request is for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import Scope

from .headers import Headers

__all__ = ["Origin", "OriginRule", "parse_origin"]

_logger = logging.getLogger(__name__)

PORTS = {"http": 80, "https": 443}
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")  # a name or an IPv6 address; no wildcard

Origin = tuple[str, str, int]  # scheme, host, port


def parse_origin(text: str) -> Origin | None:
    """Read `scheme://host[:port]`, nothing before, between or after; `None` for anything else."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    exact = f"{parts.scheme}://{parts.netloc}"
    if exact.lower() != text.lower() or "@" in parts.netloc or parts.netloc.endswith(":"):
        return None
    host = parts.hostname or ""
    if parts.scheme not in PORTS or _HOST.fullmatch(host) is None:
        return None
    return parts.scheme, host, port or PORTS[parts.scheme]


class OriginRule:
    """Tells whether the page a request comes from may make it.

    Args:
        allowed: Origins allowed besides the request's own, like `https://app.example.com`.

    Raises:
        ValueError: One of them is not an origin.
        TypeError: It is one text instead of a list of them.

    Source: wire.md, "Origin".
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

    def allows(self, scope: Scope, headers: Headers) -> bool:
        """Tell whether a request may go on; a refusal is logged with what was expected."""
        came = headers.get(b"origin")
        if came is None:
            site = headers.get(b"sec-fetch-site")
            if site is None or site in (b"same-origin", b"none"):
                return True
            _logger.warning("refused: expected Sec-Fetch-Site same-origin, got %r", site)
            return False
        expected = self._own(scope, headers.get(b"host", b""))
        origin = parse_origin(came.decode("latin-1"))
        if origin is not None and (origin in expected or origin in self._allowed):
            return True
        _logger.warning("refused: expected an Origin among %r, got %r", sorted(expected), came)
        return False

    def _own(self, scope: Scope, host: bytes) -> set[Origin]:
        """The origins a request's own page may have: its scheme, or https before a TLS proxy."""
        own: set[Origin] = set()
        for scheme in {SCHEMES[scope.get("scheme", "http")], "https"}:
            # Where Host has no port, it is the default one of the origin's own scheme.
            origin = parse_origin(f"{scheme}://{host.decode('latin-1')}")
            if origin is not None:
                own.add(origin)
        return own
