"""The checks of a Redis server on every new connection.

Owns the errors and warnings of these checks. Must not know how a worker reacts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from asgi_comet.brokers.logs import Unsuitable
from asgi_comet.brokers.redis.address import Address
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.keys import FORMAT
from asgi_comet.brokers.redis.replies import Reply
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Server", "Unsuitable", "examine"]

OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}
RIGHTS = (
    "~{0}:* &{0}:* +@read +@write +@scripting +@pubsub +@connection -@dangerous "
    "+info +time +client|kill"
)


@dataclass(frozen=True, slots=True)
class Server:
    """The properties of a Redis server, as a connection sees them.

    Attributes:
        product: `Redis` or `Valkey`; `""` if the user may not call INFO.
        version: The version; empty if the user may not call INFO.
        run: The id of the server process.
        client: The id of this connection at the server.
        primary: Whether the server is a primary.
        replicas: How many replicas are attached.
        cluster: Whether the server is a node of a cluster.
        eviction: The policy of the server when the memory is full.
    """

    product: str
    version: tuple[int, ...]
    run: str
    client: int
    primary: bool = True
    replicas: int = 0
    cluster: bool = False
    eviction: str = "noeviction"


async def examine(
    connection: Connection, address: Address, scripts: Scripts, warn: Callable[..., None]
) -> Server:
    """Check the server of a new connection.

    Args:
        connection: A running connection.
        address: The address of the server.
        scripts: The scripts of the broker.
        warn: Logs a warning; takes the arguments of a logger's method.

    Raises:
        Unsuitable: The server cannot work until an operator changes something.
        BrokerUnavailable: The server is not a primary at the moment.
    """
    try:
        server = await _ask(connection)
        _refuse(server, address, scripts)
        await _try_rights(connection, scripts)
    except ReplyError as error:
        if error.code in {"NOPERM", "NOAUTH", "WRONGPASS"}:
            rights = RIGHTS.format(scripts.keys.prefix)
            text = f"{address} allows too little: {error.reason}; the user needs {rights}"
            raise Unsuitable(address.hide(text)) from None
        raise
    if not server.version:
        warn("%s does not allow INFO, so its failovers cannot be seen", address)
    if server.eviction != "noeviction":
        text = "%s may drop channels when its memory is full: expected maxmemory-policy noeviction"
        warn(f"{text}, got %s", address, server.eviction)
    return server


async def _ask(connection: Connection) -> Server:
    client = connection.send(Call(("CLIENT", "ID"), int))
    try:
        fields = await connection.send(Call(("INFO",), read_info))
    except ReplyError as error:
        if error.code != "NOPERM":
            raise
        return Server("", (), "", await client)
    valkey = fields.get("valkey_version")
    version = valkey or fields["redis_version"]
    return Server(
        product="Valkey" if valkey else "Redis",
        version=tuple(map(int, re.findall(r"\d+", version)[:3])),
        run=fields["run_id"],
        client=await client,
        primary=fields["role"] == "master",
        replicas=int(fields["connected_slaves"]),
        cluster=fields.get("cluster_enabled", "0") != "0",
        eviction=fields.get("maxmemory_policy", "noeviction"),
    )


def _refuse(server: Server, address: Address, scripts: Scripts) -> None:
    if server.cluster:
        raise Unsuitable(f"expected a single Redis or one with sentinels, {address} is a cluster")
    if scripts.durable and (address.service or server.replicas):
        raise Unsuitable(f"expected {address} to have no replicas, as durable=True says")
    if not server.version:
        if address.service:
            raise Unsuitable(f"{address} does not allow INFO, which is needed with sentinels")
        return
    oldest = OLDEST[server.product]
    if server.version < oldest:
        wanted = " or ".join(f"{name} {a}.{b}" for name, (a, b) in OLDEST.items())
        found = ".".join(map(str, server.version))
        raise Unsuitable(f"expected {wanted} or newer, {address} is {server.product} {found}")
    if not server.primary:
        raise BrokerUnavailable(f"{address} is a replica at the moment")


async def _try_rights(connection: Connection, scripts: Scripts) -> None:
    keys = scripts.keys
    await connection.send(scripts.lineage())
    await connection.send(Call(("PUBLISH", keys.inbox(""), ""), int))
    try:
        await connection.send(Call(("SET", keys.format, FORMAT, "NX"), bool))
    except ReplyError as error:
        if error.code != "OOM":  # a Redis that is full is read all the same
            raise
    found = await connection.send(Call(("GET", keys.format), _read_format))
    if found != FORMAT:
        raise Unsuitable(
            f"expected keys of format {FORMAT} below {keys.prefix}:, found {found}, as another "
            "version of asgi_comet writes: give this one a prefix of its own"
        )


def _read_format(reply: Reply) -> int:
    return int(reply or FORMAT)


def read_info(reply: Reply) -> dict[str, str]:
    """Read the fields that `INFO` lists."""
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}
