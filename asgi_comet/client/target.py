"""Where a client connects, and what it says of itself.

Owns the rules for tokens. Must not know connections.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

__all__ = ["Target", "make_target"]

_PROCESS = re.compile(r"/p/([^/]+)$")
_HEADER = re.compile(r"[!#-'*+.^`|~\w-]+: ([!-~]([ -~]*[!-~])?)?", re.ASCII)
_PASSWORD = re.compile(r"//[^/]*@")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client connects.

    Attributes:
        url: The URL of the server's endpoints, or of a client process, without a slash at the end.
        headers: The headers of every request.
        cookies: The cookies to begin with.
        host: The server.
        port: Its port.
        tls: How to check the server's certificate; `None` for http.
    """

    url: str
    headers: dict[str, str]
    cookies: dict[str, str]
    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def process(self) -> str:
        """The token of the client process whose URL this is; empty if it is none."""
        found = _PROCESS.search(self.url)
        return found[1] if found else ""

    @property
    def shown(self) -> str:
        """The URL for logs: without the token of a client process, and without a password."""
        return _PASSWORD.sub("//…@", _PROCESS.sub("/p/…", self.url))


def make_target(
    url: str,
    *,
    headers: Mapping[str, str] | None,
    cookies: Mapping[str, str] | None,
    token: str | None,
    ssl_context: ssl.SSLContext | None,
    insecure: bool,
) -> Target:
    """Check where a client is to connect, and with what.

    Raises:
        ValueError: The URL is none of http or https, the token would be sent in clear, or a header
            or a cookie has characters that none may have.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"expected a URL like 'https://example.org/comet', got {url!r:.200}")
    found = dict(headers or {})
    if token is not None:
        if parts.scheme == "http" and not insecure and not _is_loopback(parts):
            raise ValueError(
                f"expected https for a token, got {url!r:.200}, where everybody on the way can "
                "read it; use https, or say insecure=True"
            )
        found["Authorization"] = f"Bearer {token}"
    for what, given in (("header", found), ("cookie", cookies or {})):
        for name, value in given.items():
            if not _HEADER.fullmatch(f"{name}: {value}"):
                raise ValueError(
                    f"expected printable ASCII without spaces around as the {what} {name!r:.80}, "
                    "got something else, like a newline at its end; its value is not shown here"
                )
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    tls = (ssl_context or ssl.create_default_context()) if secure else None
    return Target(parts.geturl().rstrip("/"), found, dict(cookies or {}), parts.hostname, port, tls)


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
