"""How a connection to a primary begins: the socket, TLS, the user, the sentinels.

Owns the only use of redis-py, whose connections do this work. Must not know the commands of the
broker, which use the connection afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from asgi_comet.brokers.logs import Unsuitable
from asgi_comet.brokers.redis.address import Address
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Line", "dial"]


REFUSALS = (AuthenticationError, NoPermissionError, TypeError)
NO_DATABASE = "DB index"  # in the answer to SELECT


class Line(NamedTuple):
    """A connection that Redis has accepted, as streams.

    Attributes:
        reader: Reads the bytes that Redis sends.
        writer: Writes bytes to Redis.
        hang_up: Closes the connection at once.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hang_up: Callable[[], None]


async def dial(address: Address, seconds: float) -> Line:
    """Connect to the primary; the sentinels name the primary each time.

    Args:
        address: The address of the primary or of sentinels.
        seconds: How many seconds connecting may take.

    Raises:
        Unsuitable: The user, the password, the database or an option is wrong; the text shows no
            password.
        BrokerUnavailable: The connection failed; the text shows no password.
    """
    try:
        async with asyncio.timeout(seconds):
            host, port = await _find_primary(address, seconds)
            connection = _make(address, host, port, seconds)
            return await _connect(connection)
    except TimeoutError:
        raise BrokerUnavailable(f"no answer from {address} within {seconds:g} s") from None
    except (RedisError, OSError, ValueError, TypeError, RuntimeError) as error:
        # uvloop raises `RuntimeError` where redis-py writes to a connection that was just reset;
        # redis-py raises `TypeError` for an option that it does not know.
        refused = isinstance(error, REFUSALS) or isinstance(error.__cause__, REFUSALS)
        kind = Unsuitable if refused or NO_DATABASE in str(error) else BrokerUnavailable
        raise kind(address.hide(f"{address}: {error}")) from None


async def _connect(connection: AbstractConnection) -> Line:
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # of redis-py
    except BaseException:
        _close(connection)
        raise
    reader, writer = connection._reader, connection._writer
    assert reader is not None and writer is not None  # noqa: S101, PT018 - redis-py is connected
    return Line(reader, writer, lambda: _close(connection))


def _close(connection: AbstractConnection) -> None:
    """End a connection at once, without sending the rest, for which `close` would wait."""
    if connection._writer is not None:
        connection._writer.transport.abort()
    connection._close()  # type: ignore[no-untyped-call]  # of redis-py


async def _find_primary(address: Address, seconds: float) -> tuple[str, int]:
    if not address.service:
        return address.hosts[0] if address.hosts else ("", 0)
    options: dict[str, Any] = {
        name.removeprefix("sentinel_"): value
        for name, value in address.options
        if name.startswith("sentinel_")
    }
    options |= {"socket_timeout": seconds, "ssl": address.tls, "retry": Retry(NoBackoff(), 0)}
    sentinel = Sentinel(address.hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # of redis-py
    try:
        host, port = await sentinel.discover_master(address.service)
    except MasterNotFoundError as error:
        raise MasterNotFoundError(_tell_silent(address, sentinel, str(error))) from None
    finally:
        for client in sentinel.sentinels:
            with suppress(RedisError, OSError):
                await client.aclose()
    return str(host), int(port)


def _tell_silent(address: Address, sentinel: Sentinel, text: str) -> str:
    """Return why no sentinel names a primary, without the long names that redis-py gives them."""
    asked = zip(address.hosts, sentinel.sentinels, strict=True)
    silent = [f"{host}:{port}" for (host, port), client in asked if str(client) in text]
    told = f"No master found for {address.service!r}"
    return f"{told}; no answer from {', '.join(silent)}" if silent else told


def _make(address: Address, host: str, port: int, seconds: float) -> AbstractConnection:
    options: dict[str, Any] = {
        **_read_options(address),
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": 3,
        "socket_timeout": None,
        "socket_connect_timeout": seconds,
    }
    if address.path:
        return UnixDomainSocketConnection(path=address.path, **options)
    kind = SSLConnection if address.tls else Connection
    return kind(host=host, port=port, **options)


def _read_options(address: Address) -> dict[str, Any]:
    """Convert the options of a URL to the types that redis-py expects."""
    query = urlencode([one for one in address.options if not one[0].startswith("sentinel_")])
    options: dict[str, Any] = dict(parse_url(f"redis://host?{query}"))
    return {name: value for name, value in options.items() if name not in {"host", "port"}}
