"""Nested `Comet`s: which inner one answers a request of the content types served on any path.

Owns the search for the middlewares and routers that a request would pass, without calling the
application. Must not know how a request is served.

The search finds middlewares that keep the application as `app`, as all of Starlette's do, and the
routes of Starlette and FastAPI. It does not find an application inside a function, or a mount of a
router that FastAPI includes in another.
"""

from __future__ import annotations

from collections.abc import Iterator

from starlette.applications import Starlette
from starlette.routing import Match, Router
from starlette.types import Message, Receive, Scope

from asgi_comet.errors import BadRequest
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity.current import CurrentRequest
from asgi_comet.node.build import Node
from asgi_comet.protocol.events import decode_poll
from asgi_comet.protocol.registration import CONTENT_TYPE as REGISTRATION
from asgi_comet.protocol.registration import decode_registration, spellings

__all__ = ["ahead", "knows", "names", "replay"]


def ahead(app: object, scope: Scope) -> Iterator[tuple[object, Scope]]:
    """Yield the applications that a request would pass, the outermost first.

    Args:
        app: The outermost application.
        scope: The request; not changed.

    Yields:
        Each application that the search finds, with the request as the application would get it.
    """
    seen: set[int] = set()
    found: object = app
    scope = {**scope}  # FastAPI's routes write into the scope
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found, scope
        if isinstance(found, Starlette):
            if found.middleware_stack is None:  # as its first request would
                found.middleware_stack = found.build_middleware_stack()
            found = found.middleware_stack
        elif isinstance(found, Router):
            found, scope = _choose(found, scope)
        else:
            found = getattr(found, "app", None)


def _choose(router: Router, scope: Scope) -> tuple[object, Scope]:
    for route in router.routes:
        match, further = route.matches(scope)
        if match is Match.FULL:
            return getattr(route, "app", None), {**scope, **further}
    return None, scope


def names(exchange: Exchange, body: bytes, limit: int) -> list[str]:
    """Return the names of the channels in a request; none if the request is not valid."""
    try:
        if exchange.kind == REGISTRATION:
            asked = decode_registration(body, limit)
            return [name for one in asked for name in dict.fromkeys(spellings(one))]
        return list(decode_poll(body, limit).channels)
    except BadRequest:
        return []


def knows(node: Node, scope: Scope, name: str) -> bool:
    """Return whether the client of a request can find a live or declared channel of a name."""
    channels = node.channels
    if channels.reserved.taken(name):
        return True
    if not name.startswith("~"):
        return channels.find(name) is not None
    id_ = CurrentRequest(node.requests, scope).session_id()
    session = None if id_ is None else node.clients.find_session(id_)
    process = None if session is None else session._default
    return process is not None and process.place.directory.find(name) is not None


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns a body again, and then the next messages."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again
