"""A house within the house: the parts that carry the dashboard's own channels.

Owns the names below `:admin/`, which exist nowhere else. The transports serve this `Node` as they
serve the other one, so nothing that concerns clients touches the dashboard: its channels, its
connections, its switch, its client processes, its counts and its drain are its own, in this worker
only. Must not know what is published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import HTTPConnection

from asgi_comet._runtime.counters import Counters
from asgi_comet.activation import Switch
from asgi_comet.admin.tokens import ROLES, Role
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.channels.channels import AllChannels, Channel, Options
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.scope import SITE
from asgi_comet.declare.declarations import Declarations
from asgi_comet.identity.guard import Guards
from asgi_comet.identity.spelling import Spelling
from asgi_comet.node.build import Node
from asgi_comet.node.drain import Drain
from asgi_comet.node.host import RoomsHost
from asgi_comet.node.people import NoPeople
from asgi_comet.node.society import Society
from asgi_comet.settings import Settings

__all__ = ["PREFIX", "ROLE", "make_channel", "make_house"]

PREFIX = ":admin/"  # of the names
ROLE = "asgi_comet.role"  # of the operator, in the scope of a connection


def make_house(node: Node) -> Node:
    """Return the parts that the transports of the dashboard use.

    Args:
        node: The parts of the Comet, of which the house shares the loop, the clock and the timers.
    """
    settings = Settings()  # not those of the application, whose limits are for clients
    runtime = replace(node.runtime, counters=Counters())
    fanout, broker = Fanout(runtime.loop, runtime.clock, runtime.counters), MemoryBroker()
    site = Place(Directory(threading.Lock()), PREFIX, str, SITE)
    channels = AllChannels(settings, site, broker=broker, fanout=fanout, runtime=runtime)
    broker.bind(RoomsHost(channels, fanout, runtime, NoPeople()))
    society = Society(
        settings=settings,
        identity=node.requests.identity,
        runtime=runtime,
        broker=broker,
        spelling=Spelling(None),
        channels=channels,
        url=str,
        birth=str,
        close=lambda process: None,
    )
    requests, _, changes = society.make()
    return replace(
        node,
        settings=settings,
        runtime=runtime,
        fanout=fanout,
        channels=channels,
        declarations=Declarations(settings, channels, runtime),
        activation=Switch(settings, fanout, runtime.loop, changes),
        broker=broker,
        drain=Drain(fanout, runtime.timers),
        clients=requests.clients,
        requests=requests,
        users=requests.users,
        guard=Guards(channels, runtime, changes, requests.clients, str),
        endings=society.endings,
    )


def make_channel(
    house: Node, role: Role, options: Options, look: Callable[[int], None]
) -> Channel[Any]:
    """Make a channel of the house.

    Args:
        house: The parts of the house.
        role: The role that an operator needs to follow the channel.
        options: Its options; the name is without `:admin/`.
        look: Called with the count of listeners when that changes.
    """

    async def authorise(connection: HTTPConnection) -> bool:
        return ROLES.index(connection.scope[ROLE]) >= ROLES.index(role)

    options = replace(options, authorize=authorise)
    kind = Kind.NEWEST if options.size == 1 else Kind.SITE
    channel = house.channels.make(kind, house.channels.site, None, options)
    feed = house.channels.find(channel.id)
    assert feed is not None  # noqa: S101 - for the type checker
    feed.observers = (look,)
    return channel
