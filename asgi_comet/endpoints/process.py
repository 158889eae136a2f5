"""The small endpoints around client processes: open, close, acknowledge."""

from __future__ import annotations

import json

from asgi_comet.errors import TooManyProcesses
from asgi_comet.http.exchange import JSON, TEXT, Exchange, answer, read_body
from asgi_comet.identity.current import Visit
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.protocol.events import decode_ack
from asgi_comet.transports import subscribing
from asgi_comet.transports.access import check_caller, recognise, too_many

__all__ = ["acknowledge", "close_process", "open_process"]


async def open_process(hub: Hub, _: None, exchange: Exchange) -> None:
    """Open a client process for a page: `POST PREFIX/open`, whatever its body."""
    caller = await recognise(hub, exchange)
    visit = Visit(hub.visits, exchange.scope, sessions=exchange.sessions)
    if caller is not None:
        visit.take(caller)
    try:
        process = visit.open_process()
    except TooManyProcesses as error:
        raise too_many(error) from None
    if caller is None:  # a new one, so nobody has been asked yet
        await visit.identify()
    exchange.renew = lambda: visit.cookies
    token = hub.visits.identity.sign_process(process.id, process.birth)
    url = f"{exchange.root}/p/{token}"
    opened = {"process": token, "url": url, "processTimeout": hub.settings.process_timeout}
    body = json.dumps(opened).encode()
    await answer(hub, exchange, JSON, body, status=201)


async def close_process(hub: Hub, process: ClientProcess, exchange: Exchange) -> None:
    """Close a client process: `POST PREFIX/p/TOKEN/close`, whatever its body."""
    process.close()
    await answer(hub, exchange, TEXT, b"", status=204)


async def acknowledge(hub: Hub, process: ClientProcess, exchange: Exchange) -> None:
    """Take note of what a page has: `POST PREFIX/p/TOKEN/ack`.

    A position that no longer means anything changes nothing: the page learns so when it polls.
    """
    body = await read_body(hub, exchange)
    check_caller(exchange)  # its body may have taken a while
    positions = decode_ack(body, hub.settings.max_channels_per_request)
    subscribing.acknowledge(hub, process, positions, process.listeners)
    await answer(hub, exchange, TEXT, b"", status=204)
