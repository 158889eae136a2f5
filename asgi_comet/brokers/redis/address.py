"""The URL of a Redis: how the URL is read, and shown without the password.

Must not know how connections are made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Address", "hide_password", "parse_address"]

PORT = 6379
SENTINEL_PORT = 26379
PORTS = range(1, 65536)
DATABASE = "a database like /0"
SOCKET = "a path after three slashes, as in redis+unix:///run/redis.sock"

_SCHEMES = ("redis", "rediss", "unix", "redis+unix", "redis+sentinel", "rediss+sentinel")
_SECRET = re.compile(r"([?&][^=&#]*password=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """The place of a primary, or of the sentinels that know the primary.

    Attributes:
        shown: The URL without its password.
        hosts: Names and ports: of Redis itself, or of the sentinels.
        path: The path of a unix socket; `""` for none.
        service: The name of the primary at the sentinels; `""` without sentinels.
        database: The number of the database.
        tls: Whether connections are encrypted.
        username: The user of the connection; `None` is the default user of Redis.
        password: The password of the user.
        options: The other parameters of the URL, as options of redis-py's connections.
    """

    shown: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.shown

    def hide(self, text: str) -> str:
        """Replace the passwords in a text by `***`."""
        secrets = [value for name, value in self.options if name.endswith("password")]
        for secret in (self.password, *secrets):
            if secret:
                text = text.replace(secret, "***")
        return text


def hide_password(url: str) -> str:
    """Return a URL for logs and errors: the password is `***`."""
    scheme, separator, rest = _SECRET.sub(r"\1***", url).rpartition("://")
    user, at, place = rest.rpartition("@")  # the last @: a password may contain others
    if ":" in user:
        user = f"{user.partition(':')[0]}:***"
    return f"{scheme}{separator}{user}{at}{place}"


def parse_address(url: str) -> Address:
    """Read a URL.

    Raises:
        TypeError: The URL is no text.
        ValueError: The scheme is none of `redis://`, `rediss://`, `unix://`, `redis+unix://`,
            `redis+sentinel://`, or a part is missing; the text shows no password.
    """
    if not isinstance(url, str):
        raise TypeError(f"expected url to be the URL of a Redis, got {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _expected(url, "hosts like name:6379 or [::1]:6379") from None
    if parts.scheme not in _SCHEMES:
        raise _expected(url, "one of " + ", ".join(f"{scheme}://" for scheme in _SCHEMES))
    user, _, hosts = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    options = dict(parse_qsl(parts.query))
    username, secret = options.pop("username", None), options.pop("password", None)
    found = _read_place(url, parts.scheme, hosts, unquote(parts.path), options.pop("db", "0"))
    return replace(
        found,
        tls=parts.scheme.startswith("rediss"),
        username=unquote(name) or username,
        password=unquote(password) if colon else secret,
        options=tuple(options.items()),
    )


def _read_place(url: str, scheme: str, hosts: str, path: str, database: str) -> Address:
    shown = hide_password(url)
    if scheme.endswith("unix"):
        if not path or hosts:
            raise _expected(url, SOCKET)
        return Address(shown, path=path, database=_read_number(url, database, DATABASE))
    service, _, number = path.strip("/").partition("/")
    if not scheme.endswith("sentinel"):
        read = _read_number(url, path.strip("/") or database, DATABASE)
        return Address(shown, _read_hosts(url, hosts or "localhost", PORT), database=read)
    if not service or not hosts:
        raise _expected(url, "sentinels and a name, as in redis+sentinel://a,b,c/name/0")
    read = _read_number(url, number or database, DATABASE)
    return Address(shown, _read_hosts(url, hosts, SENTINEL_PORT), service=service, database=read)


def _read_hosts(url: str, text: str, port: int) -> tuple[tuple[str, int], ...]:
    return tuple(_read_host(url, host, port) for host in text.split(","))


def _read_host(url: str, text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[(.+)\]|([^:\[\]]+))(?::(.*))?", text)
    if found is None:
        raise _expected(url, "hosts like name:6379 or [::1]:6379")
    read = port if found[3] is None else _read_number(url, found[3], "a port like :6379")
    if read not in PORTS:
        raise _expected(url, f"a port from {PORTS[0]} to {PORTS[-1]}")
    return found[1] or found[2], read


def _read_number(url: str, text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise _expected(url, what)
    return int(text)


def _expected(url: str, what: str) -> ValueError:
    return ValueError(f"expected {what} in the URL of a Redis, got {hide_password(url)!r}")
