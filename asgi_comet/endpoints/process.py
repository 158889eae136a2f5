"""The endpoints of client processes: open, close, acknowledge."""

from __future__ import annotations

import json

from asgi_comet.errors import TooManyProcesses
from asgi_comet.http.exchange import JSON, TEXT, Exchange, answer, read_body
from asgi_comet.identity.current import CurrentRequest
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.protocol.events import decode_ack
from asgi_comet.transports import subscribing
from asgi_comet.transports.access import check_claim, recognise, require_people, too_many

__all__ = ["acknowledge", "close_process", "open_process"]


async def open_process(node: Node, _: None, exchange: Exchange) -> None:
    """Open a client process for a page: `POST PREFIX/open`. The body is ignored."""
    require_people(node, "POST PREFIX/open")
    claim = await recognise(node, exchange)
    request = CurrentRequest(node.requests, exchange.scope, sessions=exchange.sessions)
    if claim is not None:
        request.take(claim)
    try:
        process = request.open_process()
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
    await answer(node, exchange, TEXT, b"", status=204)


async def acknowledge(node: Node, process: Client, exchange: Exchange) -> None:
    """Take note of what a page has: `POST PREFIX/p/TOKEN/ack`.

    An outdated position is ignored; the page is told when it polls.
    """
    body = await read_body(node, exchange)
    check_claim(exchange)  # reading the body may have taken a while
    positions = decode_ack(body, node.settings.max_channels_per_request)
    subscribing.acknowledge(node, process, positions, process.listeners)
    await answer(node, exchange, TEXT, b"", status=204)
