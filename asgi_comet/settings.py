"""Settings: the figures that an operator may change, with units, bounds and variables.

The table in `docs/operating.md` is made from this file: from the fields, their annotations and the
docstrings below them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from asgi_comet.log_events import event

__all__ = ["TIMEOUT_LIMIT", "Settings"]

SameSite = Literal["lax", "strict", "none"]
Prefetch = Literal["cookie", "header", "never"]
Settle = Literal["changes", "all"]

_logger = logging.getLogger(__name__)

TIMEOUT_LIMIT = 3600.0  # seconds: the longest hold
PREFIX = "COMET_"
LIKENESS = 0.8  # similarity of a misspelt name: `TIMEOT` is one, `REQUEST_TIMEOUT` is not

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Settings:
    """The figures that an operator may change. Immutable; times in seconds, sizes in bytes.

    Raises:
        TypeError: A setting does not exist; the text names the likely one.
        ValueError: A value is out of bounds; the text names the field.
    """

    timeout: Annotated[Seconds, Field(le=TIMEOUT_LIMIT)] = 20.0
    """How long a poll or a registration is held when nothing is published; at most 3600.
    `set_timeout` changes it in a running server.
    An outcome that is awaited is known after this time at the latest."""

    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share by which each hold is randomly longer or shorter, so that clients do not all
    reconnect at once; at least 0 and less than 1."""

    process_timeout: Seconds = 600.0
    """How long a client process may be without a connection before it is closed.
    Before its first connection it has 30 seconds, or this time if that is shorter."""

    max_processes_per_session: Count = 32
    """How many client processes a session may have.
    At the limit, the process that has been longest without a connection is closed to make room; if
    all are connected, the answer is 429."""

    max_processes: Count = 100_000
    """How many client processes there may be in all; at the limit, the answer is 503."""

    cookie_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "comet"
    """The name of the session's cookie: 1 to 64 letters, digits, `-` and `_`.
    On https it is sent with the prefix `__Host-`."""

    cookie_samesite: SameSite = "lax"
    """The cookie's `SameSite` attribute: `lax`, `strict` or, on https only, `none`."""

    answer_bytes: Bytes = 256 * 1024
    """How much one answer, or one write to a stream, holds at most, names and positions included;
    it always holds at least one message."""

    linger: SecondsOrZero = 10.0
    """How long a member of a family, or an unnamed channel, stays after its last listener, and how
    long the messages of a channel that has ended can still be read."""

    several_workers: Literal["refuse", "warn"] = "refuse"
    """How a worker without a broker reacts to another worker: `refuse` to start, or `warn` in the
    log."""

    heartbeat: Annotated[Seconds, Field(ge=1)] = 10.0
    """How long a worker may be silent before the others take it for dead and read its sources; only
    with a broker that several workers share. A worker that was only slow starts its sources again.
    """

    ready_without_broker: SecondsOrZero = 60.0
    """How long a worker stays ready while the broker is away; after this time `health/ready` is
    503. Only with a broker that several workers share."""

    prefetch: Prefetch = "cookie"
    """For which requests of the application `CometMiddleware` asks the broker for the session and
    the client process; only with a broker that several workers share.
    `cookie`: those with our cookie, but not for parts of a page, like scripts and pictures;
    `header`: those with the header `Comet-Process`; `never`: none.
    For other requests `comet.process()`, `session()`, `open_process()`, `login()` and `logout()`
    work in worker threads only, where they block."""

    settle: Settle = "changes"
    """How long the answer to a request of the application waits; only with a broker that several
    workers share. `changes`: until the other workers know the changes that the request made, like a
    new client process or channel; `all`: until its messages are stored, too."""

    strict_shared: bool = False
    """Whether a worker without a broker raises `MustAwait` where a worker with one does, so that
    tests find these calls without a Redis."""

    max_virtual_channels: Count | None = None
    """How many channels may live at a time, of all kinds together; `None` means no limit."""

    max_family_channels: Count = 10_000
    """How many members all families may have together.
    At the limit, the member that has been longest without a listener is closed to make room."""

    max_family_channels_per_session: Count = 512
    """How many of these may live for one session alone, or for one connection without a session;
    and how many without a listener all visitors together may leave behind."""

    history_size: Count = 1000
    """How many messages a channel holds if it is made without a `size` of its own."""

    history_bytes: Bytes = 8 * 1024 * 1024
    """How much the messages of one channel may take together; at least `message_limit`."""

    message_limit: Bytes = 1024 * 1024
    """How large one message may be, as JSON; a larger one raises `MessageTooLarge`."""

    body_limit: Bytes = 64 * 1024
    """How large the body of a request may be; a larger one is answered 413."""

    frame_limit: Bytes = 64 * 1024
    """How large one message from a client over a WebSocket may be; after a larger one the
    connection is closed with 1009."""

    body_timeout: Seconds = 10.0
    """How long the body of a request may take to arrive; then the answer is 408."""

    send_timeout: Seconds = 10.0
    """How long a client may take to read a write before the connection is given up."""

    max_channels_per_request: Count = 128
    """How many channels one request may name, or one WebSocket may follow; more are answered 400,
    on a WebSocket with the close code 4400."""

    def __new__(cls, **values: object) -> Self:
        """Check the names of the settings; pydantic then validates the values."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                near = get_close_matches(name, names, 1)
                raise TypeError(
                    f"expected a setting, got {name!r}; "
                    + (f"write {near[0]}=" if near else f"there are {', '.join(names)}")
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.history_bytes < self.message_limit:
            raise ValueError(
                f"history_bytes (COMET_HISTORY_BYTES) must be at least message_limit "
                f"({self.message_limit}), got {self.history_bytes}"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables: `COMET_TIMEOUT` and so on.

        A variable that looks like a misspelt one is logged as a warning with the likely name. Other
        variables are ignored.

        Args:
            environ: The variables; by default `os.environ`. A missing variable leaves the default;
                an empty one means no limit where `None` is allowed.

        Raises:
            ValueError: A value has the wrong type or is out of bounds; the text names the variable.

        Source: the configuration file of `Ocsigen_comet`, where `""` is `None`.
        """
        source = os.environ if environ is None else environ
        values = {}
        names = [field.name for field in fields(cls)]
        for name in names:
            text = source.get(_variable(name))
            if text is not None:
                values[name] = None if text == "" else text
        _warn_of_misspellings(source, [_variable(name) for name in names])
        try:
            return cls(**values)  # type: ignore[arg-type]  # pydantic converts text to numbers
        except ValidationError as error:
            raise ValueError(
                "; ".join(_explain(e["loc"], e["msg"], source) for e in error.errors())
            ) from None


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _warn_of_misspellings(found: Iterable[str], known: list[str]) -> None:
    """Log variables with a similar name to a setting's; not their values, which may be secret.

    Names are compared without the common prefix.
    """
    ours = [name.removeprefix(PREFIX) for name in known]
    for name in found:
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name.removeprefix(PREFIX), ours, 1, LIKENESS)
            if near:
                _logger.warning(
                    "unknown variable %s; did you mean %s?",
                    name,
                    PREFIX + near[0],
                    extra=event("setup.advised", reason=name),
                )


def _explain(location: tuple[int | str, ...], expected: str, source: Mapping[str, str]) -> str:
    if not location:  # a rule for several fields, whose text names them
        return expected.removeprefix("Value error, ")
    name = _variable(str(location[0]))
    return f"{name}: {expected}, got {source[name]!r}"
