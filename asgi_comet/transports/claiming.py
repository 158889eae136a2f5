"""Claims: one connection, of all those to all workers, reads the channels of a client process.

Owns how a connection takes over the reading, and that declared channels are there when their client
process asks for them. Must not know what a client is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asgi_comet.brokers.logs import Closed, Unknown
from asgi_comet.brokers.people import Found, Moved, People
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import Start
from asgi_comet.errors import CometError, ProcessClosed
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.transports.access import ANOTHER, ProcessGone
from asgi_comet.transports.postponing import NotYet, TryAgain

__all__ = ["NOT_STARTED", "claim", "come_back"]

NOT_STARTED = Found(None, Closed("failed"))
"""The result for a declared channel that could not be started."""


async def claim(
    node: Node,
    exchange: Exchange,
    process: Client,
    listener: Listener,
    starts: Mapping[str, Start],
) -> dict[str, Found]:
    """Let a connection read channels of its client process, in place of any other connection.

    Args:
        node: The parts of the Comet.
        exchange: The request, which came before those that came later, however long it waited.
        process: The client process.
        listener: The connection.
        starts: The start positions by name.

    Returns:
        The channels by name. The windows are feeds of this worker. None is known to a connection
        that has ended, or in whose place another one reads by now.

    Raises:
        TryAgain: The broker could not tell; or a login has changed the session.
        ProcessGone: The client process has closed.
        ClientGone: The client has disconnected.
    """
    if listener in node.fanout.listeners:
        former = process.read_by(listener)  # first: a message from now on wakes it
        if former:
            _people(node).unclaim(process.id, former)  # its windows go on for this one
    found = await _ask(node, exchange, process, listener, starts)
    if process.reader is not listener:
        return found
    missing = [name for name, one in found.items() if one.window is None]
    made, failed = _start_declared(node, process, missing)
    if made:
        with come_back():
            for feed in made:
                await node.channels.sharing.opened(feed)
    if made and process.reader is listener:  # else another connection has taken its place
        again = {feed.name: starts[feed.name] for feed in made}
        found |= await _ask(node, exchange, process, listener, again)
    _remember(process, found)
    return found | dict.fromkeys(failed, NOT_STARTED)


async def _ask(
    node: Node,
    exchange: Exchange,
    process: Client,
    listener: Listener,
    starts: Mapping[str, Start],
) -> dict[str, Found]:
    if process.reader is not listener:
        return dict.fromkeys(starts, Found(None, Unknown()))
    number, people = process.number_reader(), _people(node)
    with come_back():
        found = await people.claim(listener.claim.id, process.id, number, starts, exchange)
    if process.reader is not listener:  # it has left meanwhile, or another one has its place
        people.unclaim(process.id, number)
    return found


def _people(node: Node) -> People:
    people = node.broker.people
    assert people is not None  # noqa: S101 - a request for own channels was refused otherwise
    return people


class ComeBack(NotYet):
    """Has a client come back, or open another client process."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Moved):
            raise TryAgain(ANOTHER) from None
        if isinstance(error, ProcessClosed):
            raise ProcessGone from None
        super().__exit__(kind, error, trace)


_COME_BACK = ComeBack()


def come_back() -> ComeBack:
    """Have a client come back, or open another client process."""
    return _COME_BACK


def _start_declared(
    node: Node, process: Client, names: Iterable[str]
) -> tuple[list[Feed], list[str]]:
    """Start the declared ones of channels that no worker has; return feeds, and failed names."""
    made, failed = list[Feed](), list[str]()
    for name in names:
        try:
            feed = node.declarations.find_own(process, name)
        except CometError as error:
            node.declarations.report(name, error)
            failed.append(name)
        else:
            made += [] if feed is None else [feed]
    return made, failed


def _remember(process: Client, found: Mapping[str, Found]) -> None:
    """Bring the names of channels that are gone up to date."""
    directory = process.place.directory
    for name, one in found.items():
        if one.window is None and isinstance(one.start, Closed):
            directory.remember(name)
        else:
            directory.begin_anew(name)
