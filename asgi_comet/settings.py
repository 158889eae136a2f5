"""Settings: every figure an operator may change, with its unit, bounds and environment variable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from .cookies import SameSite

__all__ = ["TIMEOUT_LIMIT", "Settings"]

TIMEOUT_LIMIT = 3600.0  # seconds: the longest hold

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may change. Immutable; times in seconds, sizes in bytes, `None` no limit.

    Raises:
        ValueError: A value is out of its bounds; the text names the field.
    """

    timeout: Annotated[float, Field(gt=0, le=TIMEOUT_LIMIT, allow_inf_nan=False)] = 20.0
    """Seconds a poll is held when nothing is published; at most 3600."""

    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share by which a hold is randomly longer or shorter, so that clients spread out; 0 to 1."""

    process_timeout: Seconds = 600.0
    """Seconds a client process may be without a connection before it is closed."""

    max_processes_per_session: Count = 32
    """The greatest number of client processes of one session."""

    max_processes: Count = 100_000
    """The greatest number of client processes in all."""

    cookie_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "comet"
    """The name of the session's cookie; on https it has the prefix `__Host-`."""

    cookie_samesite: SameSite = "lax"
    """Which sites' pages send the cookie: `lax`, `strict` or, on https only, `none`."""

    answer_bytes: Count = 256 * 1024
    """How many bytes of messages one answer, or one write to a stream, has at most, one message at
    least."""

    linger: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Seconds a channel that nobody holds is kept after its last listener."""

    max_virtual_channels: Count | None = None
    """The greatest number of live channels."""

    max_family_channels: Count = 10_000
    """The greatest number of live members that all families of declared channels have together."""

    history_size: Count = 1000
    """The greatest number of messages a channel holds."""

    history_bytes: Count = 8 * 1024 * 1024
    """The greatest sum of the sizes of the messages a channel holds; at least `message_limit`."""

    message_limit: Count = 1024 * 1024
    """The greatest size of one message as JSON."""

    body_limit: Count = 64 * 1024
    """The greatest size of a request's body."""

    frame_limit: Count = 64 * 1024
    """The greatest size of what a client says at once over a WebSocket."""

    body_timeout: Seconds = 10.0
    """Seconds within which a request's body must have come."""

    send_timeout: Seconds = 10.0
    """Seconds after which an answer, or a stream, that the client does not take is given up."""

    max_channels_per_request: Count = 128
    """The greatest number of channels in one request, or on one WebSocket."""

    def __post_init__(self) -> None:
        if self.history_bytes < self.message_limit:
            raise ValueError(
                f"history_bytes (COMET_HISTORY_BYTES) must be at least message_limit "
                f"({self.message_limit}), got {self.history_bytes}"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables: `COMET_TIMEOUT` and so on.

        Args:
            environ: Where to read; by default `os.environ`. A variable that is not there leaves
                the default; an empty one means no limit where `None` is allowed.

        Raises:
            ValueError: A value is not of its kind or out of bounds; the text names the variable.

        Source: the configuration file of `Ocsigen_comet`, where `""` is `None`.
        """
        source = os.environ if environ is None else environ
        values = {}
        for name in (f.name for f in fields(cls)):
            text = source.get(_variable(name))
            if text is not None:
                values[name] = None if text == "" else text
        try:
            return cls(**values)  # type: ignore[arg-type]  # pydantic reads numbers from text
        except ValidationError as error:
            raise ValueError(
                "; ".join(_explain(e["loc"], e["msg"], source) for e in error.errors())
            ) from None


def _variable(name: str) -> str:
    return f"COMET_{name.upper()}"


def _explain(location: tuple[int | str, ...], expected: str, source: Mapping[str, str]) -> str:
    if not location:  # a rule between fields, which names them
        return expected.removeprefix("Value error, ")
    name = _variable(str(location[0]))
    return f"{name}: {expected}, got {source[name]!r}"
