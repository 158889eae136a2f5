"""The JSON spelling of users, by which workers know a user.

Owns which values can be users with a broker that several workers share: one user has one spelling.
Must not know sessions.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

__all__ = ["Spelling"]

TAG = "uuid"


class Spelling:
    """Writes users as JSON, and reads them.

    Args:
        type_: The type of users, which pydantic can write and read; `None` allows `str`, `int` and
            `UUID`.
    """

    def __init__(self, type_: Any = None) -> None:
        self._adapter: TypeAdapter[Any] | None = None if type_ is None else TypeAdapter(type_)

    def write(self, user: Hashable) -> str | None:
        """Return the spelling of a user; `None` for a visitor.

        Raises:
            TypeError: The user is of a type that has no spelling.
        """
        if user is None:
            return None
        if self._adapter is not None:
            return self._write_typed(self._adapter, user)
        if isinstance(user, UUID):
            return json.dumps({TAG: str(user)})
        if isinstance(user, str | int) and not isinstance(user, bool):
            return json.dumps(user)
        raise TypeError(
            "expected a user id that is a str, an int or a UUID, because several workers share the "
            f"broker, got {type(user).__name__}; for other types write Comet(key, user=Type)"
        )

    def read(self, text: str | None) -> Any:
        """Return the user of a spelling."""
        if text is None:
            return None
        if self._adapter is not None:
            return self._adapter.validate_json(text)
        found = json.loads(text)
        return UUID(found[TAG]) if isinstance(found, dict) else found

    def _write_typed(self, adapter: TypeAdapter[Any], user: Hashable) -> str:
        try:
            return adapter.dump_json(adapter.validate_python(user, strict=True)).decode()
        except ValidationError:
            raise TypeError(
                f"expected a user of the type that Comet(user=...) names, got {type(user).__name__}"
            ) from None
