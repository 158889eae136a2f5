"""The dashboard: its transports, its lists and its actions below `PREFIX/admin/`.

Owns docs/dashboard.md#endpoints: which endpoint needs which role, and when connections end. Must
not know what the page shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from asgi_comet.admin.dashboard import actions, lists
from asgi_comet.admin.dashboard.house import ROLE, make_house
from asgi_comet.admin.dashboard.sampler import Sampler
from asgi_comet.admin.roles import Operator, Operators
from asgi_comet.admin.tokens import Role
from asgi_comet.http.exchange import TEXT, Exchange, answer
from asgi_comet.log_events import hear
from asgi_comet.node.build import Node
from asgi_comet.observe.journal import Journal
from asgi_comet.observe.lists import list_channels, list_messages, list_tabs
from asgi_comet.observe.overview import count_channels, count_here
from asgi_comet.protocol.events import CONTENT_TYPES
from asgi_comet.transports.checking import Endpoint, Route
from asgi_comet.transports.poll import poll
from asgi_comet.transports.sse import events
from asgi_comet.transports.streaming import LIFE
from asgi_comet.transports.websocket import socket

__all__ = ["Dashboard"]

GET, POST, SOCKET = ("GET",), ("POST",), ()

KIND = (b"application/json",)


class Dashboard:
    """Serves the dashboard.

    Args:
        node: The parts of the Comet.
        operators: Recognises operators.
    """

    def __init__(self, node: Node, operators: Operators) -> None:
        self._node = node
        self._operators = operators
        self._house = make_house(node)
        self._sampler = Sampler(node, self._house)
        self._journal = Journal()

    def routes(self) -> list[Route]:
        """Return the endpoints, which all work while push is deactivated."""
        return [
            self._route("open", POST, self._open, "look"),
            self._route("close", POST, _close, "look"),
            self._route("poll", POST, self._poll, "look", *CONTENT_TYPES),
            self._route("events", GET, self._events, "look"),
            self._route("socket", SOCKET, self._socket, "look"),
            self._route("channels", POST, lists.tell_channels, "look", *KIND),
            self._route("people", POST, lists.tell_tabs, "operate", *KIND),
            self._route("messages", POST, lists.tell_messages, "contents", *KIND),
            self._route("close-tab", POST, actions.close_tab, "operate", *KIND),
            self._route("revoke", POST, actions.revoke, "operate", *KIND),
            self._route("test-message", POST, actions.send_test, "operate", *KIND),
            self._route("publish", POST, actions.publish, "operate", *KIND),
        ]

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """Return the answers of this worker to the questions of dashboards, by kind."""
        kinds = {
            "overview": count_here,
            "channels": count_channels,
            "members": list_channels,
            "tabs": list_tabs,
            "messages": list_messages,
        }
        return {kind: partial(tell, self._node, self._journal) for kind, tell in kinds.items()}

    def begin(self) -> None:
        """Start with the lifespan."""
        self._house.drain.reset()
        self._house.channels.begin()
        hear(self._journal.note, self._node)

    async def run(self) -> None:
        """Wake the connections until cancelled."""
        await self._house.fanout.run()

    async def sample(self) -> None:
        """Take samples until cancelled."""
        await self._sampler.run()

    def hurry(self) -> None:
        """End the connections once no other is left: the server begins to stop."""
        self._sampler.hurry()

    async def end(self) -> None:
        """End the connections: the server stops."""
        self._house.drain.begin()
        await self._house.fanout.flush()
        hear(self._journal.note, self._node, stop=True)

    def _route(
        self, name: str, methods: tuple[str, ...], serve: Endpoint, role: Role, *kinds: bytes
    ) -> Route:
        gate = self._operators.gate(role)
        return Route(f"/admin/{name}", methods, serve, kinds, gate, active=False, role=role)

    async def _poll(self, _: Node, operator: Operator, exchange: Exchange) -> None:
        await poll(self._house, None, _as_operator(exchange, operator))

    async def _events(self, _: Node, operator: Operator, exchange: Exchange) -> None:
        await events(self._house, _no_process, _as_operator(exchange, operator))

    async def _socket(self, _: Node, operator: Operator, exchange: Exchange) -> None:
        # The session may end, or the role: a page that connects anew is asked for both.
        await socket(self._house, _no_process, _as_operator(exchange, operator), LIFE)

    async def _open(self, node: Node, operator: Operator, exchange: Exchange) -> None:
        """Tell `comet.js` where the transports are; no client process is opened."""
        del operator
        url = f"{exchange.root}/admin"
        timeout = self._house.settings.process_timeout
        await lists.tell(
            node, exchange, {"process": "admin", "url": url, "processTimeout": timeout}
        )


async def _close(node: Node, _: Operator, exchange: Exchange) -> None:
    """Answer a page that leaves; there is no client process to close."""
    await answer(node, exchange, TEXT, b"", status=204)


async def _no_process() -> None:
    """Return no client process: the dashboard has none."""


def _as_operator(exchange: Exchange, operator: Operator) -> Exchange:
    """Return the request as one of no session, with the role for `house.authorise`."""
    exchange.headers.pop(b"cookie", None)
    exchange.scope[ROLE] = operator.role
    return exchange
