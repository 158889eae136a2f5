"""Encoding of values as JSON, once per message, by the channel's type.

Owns the JSON of a value, and the errors about a value, which do not show the value: the log has the
traceback of a source. Must not know channels or transports.

pydantic writes bytes as text unless a model says otherwise, and not all bytes are text. So a value
that holds bytes is dumped to Python first, and its bytes are written as base64 (the alphabet of
URLs). Serializers that a model has for JSON only are then not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import lru_cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from asgi_comet.errors import InvalidMessage

__all__ = ["Encode", "make_encode"]

Encode = Callable[[str, Any], bytes]
"""Encode a value for the channel with a name, or raise `InvalidMessage`."""

_PLAIN = ConfigDict(ser_json_bytes="base64", ser_json_inf_nan="null")
_NOT_FINITE = (b"NaN", b"Infinity")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')
_INPUT = re.compile(r"input_value=.*, input_type=", re.DOTALL)  # in a warning of pydantic
_OPAQUE = {"bytes", "any", "is-instance", "callable", "custom-error"}  # schemas that may hold bytes

Dump = Callable[[Any], bytes]


def make_encode(type_: Any) -> Encode:
    """Make the encoder of a channel.

    Args:
        type_: The type of the values, anything pydantic knows. `None` is any value that has a JSON
            form: models, dataclasses, dates, UUIDs, bytes (as base64) and containers of these.

    Returns:
        A function of the channel's name and a value, which returns strict JSON in UTF-8; a number
        that is not finite becomes `null`.

    Raises:
        TypeError: pydantic does not know the type; the text holds the reason.
    """
    if type_ is None or type_ is Any:
        return partial(_encode, _dump_any)
    try:
        adapter = _make_adapter(type_)
        dump = _make_dump(adapter)
    except PydanticUserError as error:
        raise TypeError(
            f"expected a type that pydantic can encode, got {type_!r}: {error}"
        ) from error
    return partial(_encode, lambda value: dump(adapter.validate_python(value)))


def _encode(dump: Dump, name: str, value: Any) -> bytes:
    try:
        return dump(value)
    except ValidationError as error:
        problems = [(".".join(map(str, e["loc"])), _tell(e)) for e in error.errors()]
        raise InvalidMessage(name, problems) from None
    except (PydanticSerializationError, RecursionError) as error:
        text = _INPUT.sub("input_type=", str(error))
        cause = error if text == str(error) else None
        raise InvalidMessage(name, [("", text)]) from cause


def _tell(error: ErrorDetails) -> str:
    if error["type"] == "union_tag_invalid":
        return f"Input should have one of the tags {error['ctx']['expected_tags']}"
    return error["msg"]


def _dump_any(value: Any) -> bytes:
    if isinstance(value, str | int | float | bool | None):
        return to_json(value, inf_nan_mode="null")
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return _dump_class(type(value))(value)
    return _dump_anything(value)


def _make_adapter(type_: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(type_, config=_PLAIN)
    except PydanticUserError:  # a type with its own configuration, or unknown to pydantic
        return TypeAdapter(type_)


def _make_dump(adapter: TypeAdapter[Any]) -> Dump:
    def dump(value: Any) -> bytes:
        # A value changed to a wrong type after validation is an error; pydantic only warns.
        return _strict(adapter.dump_json(value, by_alias=True, warnings="error"))

    def dump_apart(value: Any) -> bytes:
        plain = adapter.dump_python(value, by_alias=True, warnings="error")
        if _holds_bytes(plain):
            return to_json(plain, by_alias=True, bytes_mode="base64", inf_nan_mode="null")
        return dump(value)

    return dump_apart if _may_hold_bytes(adapter.core_schema, set()) else dump


@lru_cache(maxsize=1024)
def _dump_class(class_: type) -> Dump:
    return _make_dump(_make_adapter(class_))


def _may_hold_bytes(schema: Any, seen: set[int]) -> bool:
    if id(schema) in seen:
        return False
    seen.add(id(schema))
    if isinstance(schema, Mapping):
        tag = schema.get("type")  # not a text where a mapping of fields has a field `type`
        return (isinstance(tag, str) and tag in _OPAQUE) or any(
            _may_hold_bytes(inner, seen) for inner in schema.values()
        )
    return isinstance(schema, list | tuple) and any(_may_hold_bytes(s, seen) for s in schema)


def _holds_bytes(plain: Any) -> bool:
    if isinstance(plain, bytes | bytearray):
        return True
    if isinstance(plain, Mapping):
        return any(_holds_bytes(key) or _holds_bytes(plain[key]) for key in plain)
    return isinstance(plain, list | tuple | set | frozenset) and any(map(_holds_bytes, plain))


def _strict(data: bytes) -> bytes:
    """Replace NaN and infinities by `null`, except inside strings."""
    if any(word in data for word in _NOT_FINITE):
        return _TOKEN.sub(lambda found: found[0] if found[0][:1] == b'"' else b"null", data)
    return data


_dump_anything = _make_dump(TypeAdapter(Any, config=_PLAIN))
