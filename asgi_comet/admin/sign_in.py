"""The page of admin, and its sign-in: `PREFIX/admin/`, `admin/session`, `admin/sign-out`.

Owns docs/operating.md#sign-in. Must not know what the page shows.
"""

from __future__ import annotations

import logging
from functools import partial
from urllib.parse import parse_qs

from asgi_comet.admin.acting import record
from asgi_comet.admin.pages import (
    HTML,
    dashboard_headers,
    dashboard_page,
    sign_in_headers,
    sign_in_page,
)
from asgi_comet.admin.roles import MISSING, Operator, Operators, name_token, require_own
from asgi_comet.admin.sessions import Sessions
from asgi_comet.http.exchange import TEXT, Exchange, Refusal, answer, read_body
from asgi_comet.node.build import Node
from asgi_comet.transports.checking import Route

__all__ = ["SignIn"]

_logger = logging.getLogger(__name__)

FORM = b"application/x-www-form-urlencoded"
FIELDS = 8  # of a form, at most


class SignIn:
    """Serves the page, or the sign-in page instead.

    Args:
        operators: Recognises operators.
    """

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    def routes(self) -> list[Route]:
        """Return the endpoints.

        Any page may link to the page of admin, which has no data in it. There is no sign-in where
        the application has its own.
        """
        page = partial(Route, methods=("GET",), origin=False, active=False)
        routes = [
            page("/admin", endpoint=_redirect),
            page("/admin/", endpoint=self._show, gate=self._admit, role="look"),
        ]
        if self._operators.sessions is not None:
            routes += [
                Route("/admin/session", ("POST",), self._begin, (FORM,), self._own, active=False),
                Route("/admin/sign-out", ("POST",), self._end, gate=self._own, active=False),
            ]
        return routes

    async def _admit(self, node: Node, exchange: Exchange, _: str | None) -> Operator | Refusal:
        try:
            return await self._operators.authorise(node, exchange, "look", page=True)
        except Refusal as refusal:
            return refusal

    async def _own(self, node: Node, exchange: Exchange, _: str | None) -> Sessions | None:
        require_own(node, exchange)
        return self._operators.sessions

    async def _show(self, node: Node, found: Operator | Refusal, exchange: Exchange) -> None:
        if isinstance(found, Refusal):
            await self._ask(node, exchange, found)
        else:
            page = dashboard_page(found.role, form=self._operators.sessions is not None)
            await answer(node, exchange, HTML, page, headers=dashboard_headers())

    async def _ask(self, node: Node, exchange: Exchange, refusal: Refusal) -> None:
        fault = "" if str(refusal) == MISSING else str(refusal)
        body = sign_in_page(fault, form=self._operators.sessions is not None)
        headers = [*refusal.headers, *sign_in_headers()]
        await answer(node, exchange, HTML, body, status=refusal.status, headers=headers)

    async def _begin(self, node: Node, sessions: Sessions, exchange: Exchange) -> None:
        token = _read_token(await read_body(node, exchange))
        try:
            digest, role = self._operators.check_token(token)
        except Refusal as refusal:
            await self._ask(node, exchange, refusal)
            return
        record(Operator(role, name_token(exchange, digest)), "sign-in")
        cookie = sessions.begin(exchange.scope, exchange.root, digest, role)
        await _send_to(node, exchange, b"./", 303, cookie)

    async def _end(self, node: Node, sessions: Sessions, exchange: Exchange) -> None:
        cookie = sessions.end(exchange.scope, exchange.root)
        await _send_to(node, exchange, b"./", 303, cookie)


async def _redirect(node: Node, _: None, exchange: Exchange) -> None:
    await _send_to(node, exchange, b"admin/", 307)


async def _send_to(
    node: Node, exchange: Exchange, where: bytes, status: int, *headers: tuple[bytes, bytes]
) -> None:
    """Redirect to a relative address, so a proxy may put any path in front."""
    fields = [(b"location", where), *headers]
    await answer(node, exchange, TEXT, b"", status=status, headers=fields)


def _read_token(body: bytes) -> bytes:
    """Return the token in a form; empty if there is none.

    Raises:
        Refusal: 400 for a form of too many fields.
    """
    try:
        fields = parse_qs(body.decode("latin-1"), max_num_fields=FIELDS)
    except ValueError:
        raise Refusal(400, f"expected a form of at most {FIELDS} fields, with token") from None
    return fields.get("token", [""])[0].encode()
