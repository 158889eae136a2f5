"""A message as a client gets it.

Owns the decoding of values by a type. Must not know connections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from asgi_comet.errors import InvalidMessage
from asgi_comet.position import Position
from asgi_comet.protocol.events import Event

__all__ = ["Message", "make_decode"]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Message(Generic[T_co]):
    """One value on a channel.

    Attributes:
        channel: The name of the channel.
        position: The place in the channel. A client that starts here gets what comes after.
        data: The value: of the type that was asked for, else as JSON has it.
    """

    channel: str
    position: Position
    data: T_co


def make_decode(type_: Any) -> Callable[[Event], Message[Any]]:
    """Make the decoder of messages whose values have a type.

    Args:
        type_: Anything pydantic knows; `None` leaves values as JSON has them.

    Returns:
        A function which raises `InvalidMessage` for a value that does not fit.

    Raises:
        TypeError: pydantic does not know the type; the text holds the reason.
    """
    if type_ is None or type_ is Any:
        return lambda event: _make(event, event.data)
    try:
        adapter = _make_adapter(type_)
    except PydanticUserError as error:
        raise TypeError(f"expected a type that pydantic knows, got {type_!r}: {error}") from error

    def decode(event: Event) -> Message[Any]:
        try:
            # As JSON, because pydantic accepts more there: a text for a date, a list for a set.
            return _make(event, adapter.validate_json(to_json(event.data)))
        except ValidationError as error:
            problems = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
            at = Position.parse(event.position)
            raise InvalidMessage(event.channel, problems, at) from None

    return decode


def _make_adapter(type_: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(type_, config=ConfigDict(val_json_bytes="base64"))
    except PydanticUserError:  # a type with its own configuration, or unknown to pydantic
        return TypeAdapter(type_)


def _make(event: Event, data: Any) -> Message[Any]:
    return Message(event.channel, Position.parse(event.position), data)
