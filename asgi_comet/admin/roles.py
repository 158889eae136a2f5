"""Roles of operators: which operator a request is from, and with which role.

Owns the credential: a token, tokens with roles, or a function of the application; the session that
stands for a token; and that a request of a browser must say its origin. Must not know the actions.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from asgi_comet._runtime.functions import call
from asgi_comet._runtime.seldom import Seldom
from asgi_comet.admin.sessions import Sessions
from asgi_comet.admin.tokens import ROLES, SHOWN, Answer, Role, Tokens, read_answer
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.log_events import event
from asgi_comet.node.build import Node
from asgi_comet.transports.access import read_sessions
from asgi_comet.transports.checking import Gate

__all__ = ["MISSING", "Credential", "Operator", "Operators", "require_own"]

_logger = logging.getLogger(__name__)

MISSING = "expected Authorization: Bearer"
WRONG = "wrong credential"

Credential = str | Mapping[str, Role] | Callable[[HTTPConnection], Answer | Awaitable[Answer]]
"""The argument `admin` of `Comet`: a token, a mapping of tokens to roles, or a function."""


@dataclass(frozen=True, slots=True)
class Operator:
    """The sender of a request that may operate.

    Attributes:
        role: What the operator may do.
        name: Names the operator in the log: the digest of the token, or the user, and the address.
    """

    role: Role
    name: str


class Operators:
    """Recognises operators.

    Args:
        credential: The argument `admin` of `Comet`.
        node: The parts of the Comet.

    Attributes:
        sessions: The sessions of operators that have signed in; `None` if the application's own
            login takes their place.

    Raises:
        ValueError: A token is too short, a role is none, or the mapping is empty.
        TypeError: The credential, or a token, has another type.
    """

    def __init__(self, credential: Credential, node: Node) -> None:
        self.sessions: Sessions | None = None
        self._warnings = Seldom(_logger, node.clock.now)
        if isinstance(credential, str):
            credential = {credential: "operate"}
        if isinstance(credential, Mapping):
            self._tokens = Tokens(credential)
            identity, name = node.requests.identity, f"{node.settings.cookie_name}-admin"
            self.sessions = Sessions(name, identity, self._tokens)
        elif callable(credential):
            self._function = credential
        else:
            raise TypeError(
                "expected admin to be None, a token, a mapping of tokens to roles, or a function, "
                f"got {type(credential).__name__}"
            )

    def gate(self, role: Role) -> Gate:
        """Return the gate of a route that needs a role; its result is the `Operator`."""

        async def admit(node: Node, exchange: Exchange, _: str | None) -> Operator:
            return await self.authorise(node, exchange, role)

        return admit

    async def authorise(
        self, node: Node, exchange: Exchange, role: Role, *, page: bool = False
    ) -> Operator:
        """Return the operator that a request is from.

        Args:
            node: The parts of the Comet.
            exchange: The request.
            role: The role that the request needs.
            page: Whether the request is for a page without data, to which any page may link. A
                request with a cookie must otherwise come from a page of the server's own origin;
                where a function decides, so must each request that has an `Origin`.

        Raises:
            Refusal: 401 without a credential, or after the end of a session; 403 for a wrong
                credential, too small a role, and a cookie without our own origin.
        """
        if self.sessions is None:
            operator = await self._ask(node, exchange, page)
        else:
            digest, found = self._find(node, exchange, self.sessions, page)
            operator = Operator(found, name_token(exchange, digest))
        if ROLES.index(operator.role) < ROLES.index(role):
            raise Refusal(403, f"expected the role {role}, got {operator.role}")
        return operator

    def check_token(self, came: bytes) -> tuple[str, Role]:
        """Return the digest and the role of a token.

        Raises:
            Refusal: 403 for a wrong one.
        """
        found = self._tokens.find(came)
        if found is None:
            self._warnings.warning("refused a wrong credential", extra=event("admin.refused"))
            raise Refusal(403, WRONG)
        return found

    def _find(
        self, node: Node, exchange: Exchange, sessions: Sessions, page: bool
    ) -> tuple[str, Role]:
        authorization = exchange.headers.get(b"authorization")
        scheme, _, token = (authorization or b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return self.check_token(token)
        values = sessions.read(exchange.scope)
        if values:  # a proxy may use `Authorization` for a password of its own
            if not page:
                require_own(node, exchange)
            found = sessions.find(values)
            if found is None:
                raise Refusal(401, "the session has ended, sign in again", **_BEARER)
            return found
        if authorization is None:
            raise Refusal(401, MISSING, **_BEARER)
        return self.check_token(b"")

    async def _ask(self, node: Node, exchange: Exchange, page: bool) -> Operator:
        # The function may rely on a cookie, a password, a certificate or an address: browsers send
        # all of these for pages of other origins, too. So `Authorization` is no proof.
        if not page and (b"cookie" in exchange.headers or b"origin" in exchange.headers):
            require_own(node, exchange)
        answer = await call(self._function, HTTPConnection(exchange.scope))
        try:
            role = read_answer(answer)
        except ValueError as error:
            _logger.error(  # noqa: TRY400 - the exception is ours
                "the function given as admin refuses: %s",
                error,
                extra=event("function.failed", function="admin"),
            )
            role = None
        if role is None:
            raise Refusal(403, "not allowed")
        return Operator(role, _name_user(node, exchange))


_BEARER = {"WWW_Authenticate": "Bearer"}


def require_own(node: Node, exchange: Exchange) -> None:
    """Require that a request says that a page of the server's own origin sent it.

    Raises:
        Refusal: 403 if it does not; allowed origins do not count.
    """
    if not node.origins.is_own(exchange.scope, exchange.headers):
        raise Refusal(403, "expected a page of this server: Origin, or Sec-Fetch-Site: same-origin")


def name_token(exchange: Exchange, digest: str) -> str:
    """Return the name of an operator with a token."""
    return f"token {digest[:SHOWN]} from {_address(exchange)}"


def _name_user(node: Node, exchange: Exchange) -> str:
    """Return the name of an operator that the application has recognised."""
    for id_ in read_sessions(node, exchange):
        session = node.clients.find_session(id_)
        if session is not None and session.user is not None:
            return f"user {session.user!r:.200} from {_address(exchange)}"
    return _address(exchange)


def _address(exchange: Exchange) -> str:
    client = exchange.scope.get("client") or ("an unknown client",)
    return str(client[0])
