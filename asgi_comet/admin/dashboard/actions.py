"""The actions of the dashboard: close a tab, revoke a right, send a test message, publish.

Owns what each needs to know. The switch and the timeout are in `admin.endpoints`. Must not know how
an action reaches other workers.
"""

from __future__ import annotations

from typing import Any

from asgi_comet.admin.acting import confirm, record
from asgi_comet.admin.dashboard.lists import Request, Text, read, tell
from asgi_comet.admin.roles import Operator
from asgi_comet.errors import CometError, InvalidMessage
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.identity.guard import Whom
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.transports.postponing import not_yet

__all__ = ["close_tab", "publish", "revoke", "send_test"]

TEST = b'{"event":"test"}'


class Tab(Request):
    """A client process."""

    tab: Text


class Right(Tab):
    """The right of a client process to read a channel."""

    channel: Text


class Publication(Request):
    """A message."""

    channel: Text
    data: Any


async def close_tab(node: Node, operator: Operator, exchange: Exchange) -> None:
    """Close a client process, in all workers."""
    tab = await _find(node, await read(node, exchange, Tab))
    tab.close()
    record(operator, "close-tab")  # now, as others may not confirm it
    pending = node.clients.pending(tab.session)
    if pending is not None:
        with not_yet():
            await pending.wait()
    await tell(node, exchange, {})


async def revoke(node: Node, operator: Operator, exchange: Exchange) -> None:
    """End the delivery of a site channel, or of those of a family, to a client process."""
    asked = await read(node, exchange, Right)
    tab = await _find(node, asked)
    confirmation = node.guard.revoke(asked.channel, Whom(process=tab.id))
    record(operator, "revoke")
    await confirm(confirmation)
    await tell(node, exchange, {})


async def send_test(node: Node, operator: Operator, exchange: Exchange) -> None:
    """Send a message to a client process on its channel `~comet`."""
    tab = await _find(node, await read(node, exchange, Tab))
    node.users.tell(tab, TEST)
    record(operator, "test-message")
    await tell(node, exchange, {})


async def publish(node: Node, operator: Operator, exchange: Exchange) -> None:
    """Publish on a declared channel of the site, whose type checks the message."""
    asked = await read(node, exchange, Publication)
    match = node.declarations.match(asked.channel)
    if match is None:
        raise Refusal(404, "expected a declared channel, of which the server knows the type")
    try:
        channel = node.declarations.channel(match.declared, match.parameters)
        delivery = channel.publish(asked.data)
        record(operator, "publish")
        position = await delivery.stored()
    except (InvalidMessage, TypeError) as error:
        raise Refusal(422, str(error)) from None
    except CometError as error:
        raise Refusal(503, str(error)) from None
    await tell(node, exchange, {"position": str(position)})


async def _find(node: Node, asked: Tab) -> Client:
    """Return a client process, also one that only other workers know.

    Raises:
        Refusal: 404 if there is none of that id.
        TryAgain: The broker cannot tell.
    """
    with not_yet():
        await node.clients.arrive((), asked.tab)
    tab = node.clients.find(asked.tab)
    if tab is None or tab.closed:
        raise Refusal(404, "this tab has gone")
    return tab
