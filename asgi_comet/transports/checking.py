"""Checks of a request before it is served: origin, method, content type, activation.

Owns `Route`, the checks of one endpoint, and the answers to requests that fail a check. Must not
know which endpoints there are, or the purpose of a request.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from asgi_comet.http.exchange import Exchange, Refusal, stopping
from asgi_comet.node.build import Node

__all__ = ["Endpoint", "Gate", "Route", "check_request", "check_waiting", "deactivated"]

RETRY_AFTER = (5, 15)  # seconds, at random, so that clients do not retry all at once

Endpoint = Callable[[Node, Any, Exchange], Awaitable[None]]
"""Serve a request that passed every check.

The second argument is the result of the route's gate; `None` if the route has no gate.
"""

Gate = Callable[[Node, Exchange, str | None], Awaitable[object]]
"""Check a token or a credential. The third argument is the token in the path, if any."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint, and the checks before the endpoint is called.

    The checks are made in the order of docs/wire.md#every-request-and-answer: the origin, the gate,
    the method, the content type, the activation.

    Attributes:
        path: Below PREFIX, with `{token}` for the token of a client process; `*` is any path.
        methods: The methods of the endpoint; none for a WebSocket, which has no method.
        endpoint: Serves the request.
        kinds: The content types of the endpoint; none means any. Where several routes have the
            same path, the content type chooses; the last of them refuses all other types.
        gate: Checks a token or a credential; `None` if there is neither.
        origin: Whether a request from a foreign origin is refused.
        active: Whether a request is refused while push is deactivated.
        transport: The transport, for the figures; `None` if the endpoint holds no connection.
        lifespan: Whether the endpoint needs the lifespan; otherwise the server answers always.
        role: The role of an operator that the gate requires; `None` for an endpoint without one.
    """

    path: str
    methods: tuple[str, ...]
    endpoint: Endpoint
    kinds: tuple[bytes, ...] = ()
    gate: Gate | None = None
    origin: bool = True
    active: bool = True
    transport: str | None = None
    lifespan: bool = True
    role: str | None = None


def check_request(node: Node, exchange: Exchange, route: Route) -> None:
    """Check the method, the content type and the activation, before the body is read.

    Raises:
        Refusal: 405 for another method; 415 for another content type; 503 while deactivated.
    """
    methods, kinds = route.methods, route.kinds
    if methods and exchange.scope["method"] not in methods:
        raise _wrong_method(exchange, methods)
    if kinds and exchange.kind not in kinds:
        names = " or ".join(name.decode() for name in kinds)
        came = (exchange.kind or b"none").decode("latin-1")
        raise Refusal(415, f"expected the content type {names}, got {came:.80}")
    if route.active and not node.activation.active:
        raise deactivated()


def _wrong_method(exchange: Exchange, methods: tuple[str, ...]) -> Refusal:
    expected = methods[0]  # HEAD follows GET and is not mentioned
    return Refusal(405, f"expected {expected}, got {exchange.scope['method']:.20}", Allow=expected)


def deactivated() -> Refusal:
    """Return the answer to every request while comet is deactivated."""
    seconds = random.randint(*RETRY_AFTER)  # noqa: S311 - spreads load, keeps no secret
    refusal = Refusal(503, "", Retry_After=str(seconds))
    refusal.outcome = "deactivated"
    return refusal


def check_waiting(node: Node) -> None:
    """Check whether a request may be held, after its body was read.

    Raises:
        Refusal: 503 while deactivated, or when the server stops: otherwise clients would retry in a
            loop.
    """
    if not node.activation.active:
        raise deactivated()
    if node.drain.begun:
        raise stopping()
