"""The sign-in of operators: a signed cookie that stands for a token for eight hours.

Owns the cookie and its contents. A session ends with its token, with the role that the token had,
and with the secret key. Must not know which requests need which role.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.types import Scope

from asgi_comet.admin.tokens import Role, Tokens
from asgi_comet.identity.cookies import Cookie
from asgi_comet.identity.tokens import OPERATOR_AGE, Identity

__all__ = ["Sessions"]


class Sessions:
    """The sessions of operators. There is no table: all is in the cookie.

    Args:
        name: The name of the cookie, without the prefix.
        identity: Signs and verifies.
        tokens: The present tokens.

    Source: docs/operating.md#sign-in.
    """

    def __init__(self, name: str, identity: Identity, tokens: Tokens) -> None:
        self._cookie = Cookie(name, "strict", prefix="__Secure-")
        self._identity = identity
        self._tokens = tokens

    def read(self, scope: Scope) -> list[str]:
        """Return the values of the cookie in a request, which may be of any origin and age."""
        return self._cookie.read(scope)

    def find(self, values: list[str]) -> tuple[str, Role] | None:
        """Return the digest of the token and the role of a session that has not ended."""
        for value in values:
            role, _, digest = (self._identity.unsign_operator(value) or "").partition(".")
            present = self._tokens.role_of(digest)
            if present is not None and present == role:
                return digest, present
        return None

    def begin(self, scope: Scope, root: str, digest: str, role: Role) -> tuple[bytes, bytes]:
        """Return the header that begins a session.

        Args:
            scope: The request.
            root: The URL path where comet is mounted.
            digest: The digest of the token.
            role: The role of the token.
        """
        value = self._identity.sign_operator(f"{role}.{digest}")
        return self._cookie.write(scope, value, path=_path(root), age=int(OPERATOR_AGE))

    def end(self, scope: Scope, root: str) -> tuple[bytes, bytes]:
        """Return the header that has a browser forget a session."""
        return self._cookie.write(scope, "", path=_path(root), age=0)


def _path(root: str) -> str:
    return quote(f"{root}/admin")
