"""Who may use the endpoints of a client process, and that somebody does.

Owns the answers to a token that is not one, is of a closed process, or of another session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgi_comet.errors import TooManyProcesses
from asgi_comet.feeds import Listener, Wake
from asgi_comet.hub import Hub
from asgi_comet.processes import ClientProcess
from asgi_comet.visits import Visit

from .exchange import Exchange, Refusal

__all__ = [
    "Find",
    "ProcessGone",
    "default_process",
    "enter",
    "leave",
    "process_of",
    "still_reading",
    "too_many",
]


Find = Callable[[], Awaitable[ClientProcess | None]]
"""Finds whose endpoint a request came to; `None` is the site's. Raises as `process_of` does."""


class ProcessGone(Exception):
    """The client process of an endpoint has closed."""


async def process_of(hub: Hub, exchange: Exchange, token: str) -> ClientProcess:
    """Return the client process that a token in a URL names, if the request may use it.

    Raises:
        Refusal: 403 for a token that we did not sign, or without the cookie of its session.
        ProcessGone: It has closed. This is looked at before the cookie: after a restart of the
            server, a page without a valid cookie has to learn it, too.

    Source: wire.md, section 6.
    """
    id_ = hub.visits.identity.unsign_process(token)
    if id_ is None:
        raise Refusal(403, "the URL names no client process of ours")
    process = hub.processes.find(id_)
    if process is None or process.closed:
        # A process of another worker will be served from here once there is a broker for it.
        raise ProcessGone
    if Visit(hub.visits, exchange.scope).session() != process.session.id:
        raise Refusal(403, "the client process belongs to another session")
    return process


def default_process(hub: Hub, exchange: Exchange) -> ClientProcess | None:
    """Return the default client process of the session a request's cookie names, if it has one.

    Raises:
        Refusal: 429 or 503: there are too many.
    """
    session = Visit(hub.visits, exchange.scope).session()
    if session is None:
        return None
    try:
        return hub.processes.default(session)
    except TooManyProcesses as error:
        raise too_many(error) from None


def too_many(error: TooManyProcesses) -> Refusal:
    """Return the answer to a process too many."""
    return Refusal(429 if error.of_session else 503, str(error), Retry_After="30")


def enter(hub: Hub, process: ClientProcess | None, listener: Listener, seconds: float) -> None:
    """Count a connection in: to its process, and as held from now. `leave` it in any case.

    Args:
        hub: The rooms.
        process: Whose connection it is; `None` for nobody's.
        listener: The connection.
        seconds: When it expires.
    """
    if process is not None:
        process.connect()
        process.listeners.add(listener)
    hub.fanout.listeners.add(listener)
    hub.timers.start(listener, seconds)


def still_reading(process: ClientProcess | None, listener: Listener, why: Wake) -> Wake:
    """Tell why a hold ended: replaced, if a newer connection reads the process' own channels.

    Also if a message came in the same moment: then it is the newer one's.
    """
    replaced = process is not None and process.reader is not listener
    return Wake.REPLACED if replaced and why in (Wake.MESSAGE, Wake.TIMEOUT) else why


def leave(hub: Hub, process: ClientProcess | None, listener: Listener) -> None:
    """Count a connection out: nothing of it remains."""
    hub.timers.stop(listener)
    hub.fanout.detach(listener)
    if process is not None:
        process.listeners.discard(listener)
        process.left_by(listener)
        process.disconnect()
