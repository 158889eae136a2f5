"""The admin endpoints: status, activate, deactivate, timeout, command.

Owns docs/operating.md#the-admin-endpoint, and which role each endpoint needs. `Activation` owns the
actions, `Operators` the roles.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError

from asgi_comet.admin.acting import confirm, record
from asgi_comet.admin.dashboard.dashboard import Dashboard
from asgi_comet.admin.metrics import serve_metrics
from asgi_comet.admin.roles import Credential, Operator, Operators
from asgi_comet.admin.sign_in import SignIn
from asgi_comet.admin.status import report
from asgi_comet.admin.tokens import Role
from asgi_comet.http.exchange import JSON, Exchange, Refusal, answer, read_body
from asgi_comet.identity.changes import Confirmation
from asgi_comet.node.build import Node
from asgi_comet.transports.checking import Endpoint, Route

__all__ = ["Admin"]

Act = Callable[[bytes], Confirmation]
"""Makes a change, given the body of the request."""


class _Timeout(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    seconds: float
    kill: bool = False


class Admin:
    """Serves `PREFIX/admin/…`.

    Args:
        node: The parts of the Comet.
        credential: The argument `admin` of `Comet`; `None` switches admin off: every path is 404.

    Attributes:
        dashboard: The dashboard; `None` if admin is off.

    Raises:
        ValueError: As `Operators`.
        TypeError: As `Operators`.
    """

    def __init__(self, node: Node, credential: Credential | None) -> None:
        self._node = node
        self._operators = None if credential is None else Operators(credential, node)
        self.dashboard: Dashboard | None = None
        if self._operators is not None:
            self.dashboard = Dashboard(node, self._operators)

    def routes(self) -> list[Route]:
        """Return the endpoints; none if admin is off. They also work while deactivated."""
        operators, dashboard = self._operators, self.dashboard
        if operators is None or dashboard is None:
            return []
        activation = self._node.activation

        def action(name: str, act: Act, *kinds: bytes) -> Route:
            role: Role = "operate"
            gate, serve = operators.gate(role), _make_action(name, act)
            path = f"/admin/{name}"
            return Route(path, ("POST",), serve, kinds, gate, active=False, role=role)

        look = operators.gate("look")
        return [
            *SignIn(operators).routes(),
            Route("/admin/status", ("GET",), _tell, gate=look, active=False, role="look"),
            Route("/admin/metrics", ("GET",), serve_metrics, gate=look, active=False, role="look"),
            action("activate", lambda body: activation.activate()),
            action("deactivate", lambda body: activation.deactivate()),
            action("timeout", self._timeout, b"application/json"),
            action("command", self._command, b"text/plain"),
            *dashboard.routes(),
        ]

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


def _make_action(name: str, act: Act) -> Endpoint:
    """Return the endpoint of a change, which is logged with the operator."""

    async def serve(node: Node, operator: Operator, exchange: Exchange) -> None:
        body = await read_body(node, exchange)
        try:
            confirmation = act(body)
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        record(operator, name)
        await _tell(node, operator, exchange, confirmed=await confirm(confirmation))

    return serve


async def _tell(node: Node, _: Operator, exchange: Exchange, **more: int) -> None:
    """Answer with the status."""
    await answer(node, exchange, JSON, json.dumps(await report(node) | more).encode())
