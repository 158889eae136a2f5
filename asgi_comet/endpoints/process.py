"""The endpoints of client processes: open, close, acknowledge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from asgi_comet.core.messages import parse_position
from asgi_comet.errors import BrokerUnavailable, TooManyProcesses
from asgi_comet.http.exchange import JSON, TEXT, Exchange, answer, read_body
from asgi_comet.identity.current import CurrentRequest
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.position import Position
from asgi_comet.protocol.events import decode_ack
from asgi_comet.transports import subscribing
from asgi_comet.transports.access import (
    check_claim,
    recognise,
    require_people,
    too_many,
)
from asgi_comet.transports.postponing import not_yet

__all__ = ["acknowledge", "acknowledged", "close_process", "open_process"]


ASKED = 2.0  # seconds that other workers have to take note of an acknowledgement


async def open_process(node: Node, _: None, exchange: Exchange) -> None:
    """Open a client process for a page: `POST PREFIX/open`. The body is ignored."""
    require_people(node, "POST PREFIX/open")
    claim = await recognise(node, exchange)
    request = CurrentRequest(node.requests, exchange.scope, sessions=exchange.sessions)
    if claim is not None:
        request.take(claim)
    try:
        process = request.open_process()
        with not_yet():
            await request.settle()
    except TooManyProcesses as error:
        raise too_many(error) from None
    if claim is None:  # a new session, whose user is not known yet
        await request.identify()
    exchange.renew = lambda: request.cookies
    token = node.requests.identity.sign_process(process.id, process.birth)
    url = f"{exchange.root}/p/{token}"
    opened = {"process": token, "url": url, "processTimeout": node.settings.process_timeout}
    body = json.dumps(opened).encode()
    await answer(node, exchange, JSON, body, status=201)


async def close_process(node: Node, process: Client, exchange: Exchange) -> None:
    """Close a client process: `POST PREFIX/p/TOKEN/close`, with any body."""
    process.close()
    pending = node.clients.pending(process.session)
    if pending is not None:
        with not_yet():
            await pending.wait()
    await answer(node, exchange, TEXT, b"", status=204)


async def acknowledge(node: Node, process: Client, exchange: Exchange) -> None:
    """Take note of what a page has: `POST PREFIX/p/TOKEN/ack`.

    An outdated position is ignored; the page is told when it polls.
    """
    body = await read_body(node, exchange)
    check_claim(exchange)  # reading the body may have taken a while
    positions = decode_ack(body, node.settings.max_channels_per_request)
    subscribing.acknowledge(node, process, positions, process.listeners)
    if node.broker.people is not None and any(name.startswith("~") for name in positions):
        with not_yet():
            await node.broker.people.reported(process.id)
    await _acknowledge_elsewhere(node, process, positions)
    await answer(node, exchange, TEXT, b"", status=204)


async def _acknowledge_elsewhere(
    node: Node, process: Client, positions: Mapping[str, Position]
) -> None:
    """Tell the other workers what a page has of site channels that no connection here follows.

    Best effort: without the broker the outcome of a message stays unknown.
    """
    followed = {feed.name for listener in process.listeners for feed in listener.cursors}
    here = {name for name in positions if name.startswith("~")} | followed
    rest = {name: str(at) for name, at in positions.items() if name not in here}
    if rest and node.clients.shared:
        with suppress(BrokerUnavailable):
            await node.broker.ask_all(json.dumps(["acknowledged", [process.id, rest]]), ASKED)


def acknowledged(node: Node, details: tuple[str, dict[str, str]]) -> None:
    """Take note of what a page has, which another worker was told."""
    id_, told = details
    process = node.clients.find(id_)
    if process is not None:
        positions = {name: parse_position(at) for name, at in told.items()}
        subscribing.acknowledge(node, process, positions, process.listeners)
