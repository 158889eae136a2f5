"""The admin endpoints: status, activate, deactivate, timeout, command.

Owns the credential and docs/operating.md#the-admin-endpoint. `Activation` owns the actions.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import HTTPConnection

from asgi_comet._runtime.functions import call
from asgi_comet.admin.status import report
from asgi_comet.errors import Unconfirmed
from asgi_comet.http.exchange import JSON, Exchange, Refusal, answer, read_body
from asgi_comet.identity.changes import Confirmation
from asgi_comet.node.build import Node
from asgi_comet.transports.checking import Route

__all__ = ["TOKEN_MINIMUM", "Admin", "Credential"]

_logger = logging.getLogger(__name__)

TOKEN_MINIMUM = 32  # characters

Act = Callable[[bytes], Confirmation]
"""Makes a change, given the body of the request."""

Credential = str | Callable[[HTTPConnection], bool | Awaitable[bool]]


class _Timeout(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    seconds: float
    kill: bool = False


class Admin:
    """Serves `PREFIX/admin/…`.

    Args:
        node: The parts of the Comet.
        credential: `None` switches admin off: every path is 404. A token of at least 32 ASCII
            characters is expected as `Authorization: Bearer`. A function of the connection, sync
            or async, allows a request by returning `True`; any other result refuses it.

    Raises:
        ValueError: The token is too short.
        TypeError: The credential has another type.
    """

    def __init__(self, node: Node, credential: Credential | None) -> None:
        if isinstance(credential, str):
            if len(credential) < TOKEN_MINIMUM or not credential.isascii():
                raise ValueError(
                    f"expected an admin token of at least {TOKEN_MINIMUM} characters of ASCII, "
                    f"got {len(credential)}"
                )
        elif credential is not None and not callable(credential):
            raise TypeError(
                f"expected admin to be None, a token or a function, got {type(credential).__name__}"
            )
        self._node = node
        self._credential = credential

    def routes(self) -> list[Route]:
        """Return the endpoints; none if admin is off. They also work while deactivated."""
        if self._credential is None:
            return []
        activation = self._node.activation
        return [
            self._route("status", "GET", lambda body: Confirmation()),
            self._route("activate", "POST", lambda body: activation.activate()),
            self._route("deactivate", "POST", lambda body: activation.deactivate()),
            self._route("timeout", "POST", self._timeout, b"application/json"),
            self._route("command", "POST", self._command, b"text/plain"),
        ]

    def _route(self, name: str, method: str, act: Act, *kinds: bytes) -> Route:
        async def serve(node: Node, _: None, exchange: Exchange) -> None:
            body = await read_body(node, exchange)
            try:
                confirmed = await act(body)
            except ValueError as error:
                raise Refusal(400, str(error)) from None
            except Unconfirmed as error:
                raise Refusal(503, f"done in this worker, but {error}") from None
            if method == "POST":
                client = exchange.scope.get("client") or ("an unknown client",)
                _logger.info("%s by %s", name, client[0])
            told = await report(node) | ({"confirmed": confirmed} if method == "POST" else {})
            await answer(node, exchange, JSON, json.dumps(told).encode())

        gate = self._authenticate
        return Route(f"/admin/{name}", (method,), serve, kinds, gate, active=False)

    async def _authenticate(self, node: Node, exchange: Exchange, _: str | None) -> None:
        credential, connection = self._credential, HTTPConnection(exchange.scope)
        authorization = connection.headers.get("authorization")
        if callable(credential):
            if await call(credential, connection) is not True:
                raise Refusal(403, "not allowed")
            return
        if authorization is None:
            raise Refusal(401, "expected Authorization: Bearer", WWW_Authenticate="Bearer")
        scheme, _, token = authorization.partition(" ")
        right = hmac.compare_digest(token.encode(), str(credential).encode())
        if scheme.lower() != "bearer" or not right:
            _logger.warning("refused a wrong credential")
            raise Refusal(403, "wrong credential")

    def _timeout(self, body: bytes) -> Confirmation:
        try:
            asked = _Timeout.model_validate_json(body)
        except ValidationError:
            raise ValueError(
                'expected {"seconds": 5, "kill": true}, "kill" being optional'
            ) from None
        return self._node.activation.set_timeout(asked.seconds, reset=asked.kill)

    def _command(self, body: bytes) -> Confirmation:
        return self._node.activation.command(body.decode(errors="replace"))
