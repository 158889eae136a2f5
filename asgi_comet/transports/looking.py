"""Looking up the channels that a registration request names.

Owns the spellings of identifiers, and that a client which loses a right meanwhile gets nothing of
that channel. Must not know positions, answers, nor how a request is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from asgi_comet.brokers.logs import Placed
from asgi_comet.brokers.people import Found
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.errors import CometError
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.protocol.registration import spellings
from asgi_comet.transports.subscribing import admit

__all__ = ["Asking", "Looked", "look", "look_up", "own_names"]


@dataclass(slots=True)
class Looked:
    """The channels that identifiers name.

    Attributes:
        feeds: Channels that are live or still readable.
        begins: Where the store says that the client begins, of own channels that workers share.
        missing: Names of channels of the client process that do not exist yet.
        unknown: Names without a channel.
    """

    feeds: list[Feed] = field(default_factory=list)
    begins: dict[Feed, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asking:
    """A request that names channels.

    Attributes:
        identifiers: The identifiers, still escaped.
        listener: The listener of the request.
        exchange: The request.
        own: The own channels, claimed from the store; `None` if only this worker has them.
    """

    identifiers: list[str]
    listener: Listener
    exchange: Exchange
    own: Mapping[str, Found] | None = None


def own_names(identifiers: Iterable[str]) -> list[str]:
    """Return all names of own channels that identifiers may mean."""
    names = (name for identifier in identifiers for name in spellings(identifier))
    return [name for name in dict.fromkeys(names) if name.startswith("~")]


async def look_up(node: Node, process: Client | None, asking: Asking) -> Looked:
    """Find the channels of a request; again if the client lost a right meanwhile."""
    while True:
        revoked = node.guard.revoked
        found = await _look_up_once(node, process, asking)
        if revoked == node.guard.revoked:
            return found


async def _look_up_once(node: Node, process: Client | None, asking: Asking) -> Looked:
    found = Looked()
    seen: set[Feed] = set()
    for identifier in asking.identifiers:
        feed = await _find(node, process, asking, identifier)
        if feed is None:
            name = next(spellings(identifier))
            own = process is not None and name.startswith("~")
            (found.missing if own else found.unknown).append(name)
        elif feed not in seen:
            seen.add(feed)
            found.feeds.append(feed)
    for one in (asking.own or {}).values():
        if isinstance(one.window, Feed) and isinstance(one.start, Placed):
            found.begins[one.window] = one.start.after
    return found


async def _find(node: Node, process: Client | None, asking: Asking, identifier: str) -> Feed | None:
    for name in dict.fromkeys(spellings(identifier)):  # most identifiers have only one spelling
        feed = await look(node, process, asking, name)
        if feed is not None:
            return feed
    return None


async def look(node: Node, process: Client | None, asking: Asking, name: str) -> Feed | None:
    """Return the feed of a channel that a request names; `None` without a channel or a right."""
    feed: object = None
    try:
        if not name.startswith("~"):
            _, feed = await admit(node, asking.exchange, asking.listener, name)
        elif asking.own is not None:
            feed = asking.own[name].window
        elif process is not None:
            directory = process.place.directory
            feed = directory.find(name) or node.declarations.find_own(process, name)
    except CometError as error:
        node.declarations.report(name, error)
    return feed if isinstance(feed, Feed) else None
