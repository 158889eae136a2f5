"""The admin tokens, the roles that they stand for, and the check of what the application gives.

Owns the order of the roles, and how tokens are compared. Must not know requests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

__all__ = ["ROLES", "SHOWN", "TOKEN_MINIMUM", "Answer", "Role", "Tokens", "read_answer"]

TOKEN_MINIMUM = 32  # characters
DIGEST = 32  # characters, of which a log has the first `SHOWN`
SHOWN = 12

Role = Literal["look", "operate", "contents"]
ROLES: tuple[Role, ...] = ("look", "operate", "contents")
"""Each role includes those before it."""

Answer = Role | bool | None
"""The results of the application's function: `True` is `operate`; `None` and `False` refuse."""


def read_answer(answer: object) -> Role | None:
    """Return the role that an answer of the application means; `None` refuses.

    Raises:
        ValueError: The answer is none of `Answer`.
    """
    if answer is None or answer is False:
        return None
    if answer is True:
        return "operate"
    role = _find_role(answer)
    if role is None:
        raise ValueError(
            f"expected 'look', 'operate', 'contents', True, False or None, got {_describe(answer)}"
        )
    return role


class Tokens:
    """The tokens, and the role of each.

    Args:
        roles: The role of each token.

    Raises:
        ValueError: There is no token; a token is too short; or a role is none.
        TypeError: A token is not text.
    """

    def __init__(self, roles: Mapping[str, Role]) -> None:
        if not roles:
            raise ValueError("expected at least one admin token, got an empty mapping")
        self._roles: dict[str, Role] = {}
        for token, role in roles.items():
            _check_token(token)
            self._roles[token] = _check_role(role)
        self._by_digest = {make_digest(token): role for token, role in self._roles.items()}

    def find(self, came: bytes) -> tuple[str, Role] | None:
        """Return the digest and the role of a token; `None` for a wrong one.

        Every token is compared, in constant time.
        """
        found = [
            (make_digest(token), role)
            for token, role in self._roles.items()
            if hmac.compare_digest(came, token.encode())
        ]
        return found[0] if found else None

    def role_of(self, digest: str) -> Role | None:
        """Return the present role of the token with a digest; `None` if there is no such token."""
        return self._by_digest.get(digest)


def make_digest(token: str) -> str:
    """Return a name for a token that does not give the token away."""
    return hashlib.sha256(token.encode()).hexdigest()[:DIGEST]


def _check_token(token: object) -> None:
    if not isinstance(token, str):
        raise TypeError(f"expected each admin token to be str, got {type(token).__name__}")
    if len(token) < TOKEN_MINIMUM or not token.isascii():
        raise ValueError(
            f"expected an admin token of at least {TOKEN_MINIMUM} characters of ASCII, "
            f"got {len(token)}"
        )


def _check_role(role: object) -> Role:
    found = _find_role(role)
    if found is None:
        raise ValueError(
            "expected each admin token to have a role, 'look', 'operate' or 'contents', "
            f"got {_describe(role)}"
        )
    return found


def _find_role(value: object) -> Role | None:
    return next((role for role in ROLES if role == value), None)


def _describe(value: object) -> str:
    """Return words for a value that may be a credential, so must not be shown."""
    return f"a text of {len(value)} characters" if isinstance(value, str) else type(value).__name__
