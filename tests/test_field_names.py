"""A model may name its fields as it likes, also as pydantic's own schemas name theirs."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import AsyncIterator
from dataclasses import make_dataclass
from typing import Annotated, Any, Literal

from anyio import sleep_forever
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model
from typing_extensions import TypedDict

from asgi_comet import SITE, Comet
from asgi_comet.channels.encoding import make_encode
from tests.kit.serving import Address, poll

WORDS_OF_SCHEMAS = [
    *("type", "schema", "ref", "fields", "choices", "cls", "default", "metadata", "definitions"),
    *("serialization", "schema_ref", "function", "items_schema", "values_schema", "expected"),
    *("discriminator", "mode", "name", "steps", "strict", "any", "bytes"),
]


def is_possible(name: str) -> bool:
    """Whether pydantic takes a field of that name, whatever its warnings."""
    return name.isidentifier() and not name.startswith("model_")


NAMES = st.sampled_from(WORDS_OF_SCHEMAS) | st.from_regex(
    r"[A-Za-z]\w{0,8}", fullmatch=True
).filter(is_possible)

LEAVES = st.integers(-9, 9) | st.text(max_size=3) | st.binary(max_size=3) | st.booleans()


def model(name: str, fields: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a field called `schema` shadows a method
        return create_model(name, **fields)  # what it is no type checker can know


def encoded(value: Any, type_: Any = None) -> Any:
    return json.loads(make_encode(type_)("c", value))


def plain(leaf: Any) -> Any:
    return base64.urlsafe_b64encode(leaf).decode() if isinstance(leaf, bytes) else leaf


@given(st.dictionaries(NAMES, LEAVES, min_size=1, max_size=4), NAMES)
def test_a_field_of_any_name_is_published(leaves: dict[str, Any], outer: str) -> None:
    types = {name: type(leaf) for name, leaf in leaves.items()}
    expected = {name: plain(leaf) for name, leaf in leaves.items()}
    inner = model("Inner", {name: (type_, ...) for name, type_ in types.items()})
    nested = model("Nested", {outer: (list[inner], ...)})  # type: ignore[valid-type]  # made here
    value = inner.model_validate(leaves)
    for type_ in (None, inner):
        assert encoded(value, type_) == expected
    for type_ in (None, dict[str, inner]):  # type: ignore[valid-type]  # made here
        assert encoded({outer: value}, type_) == {outer: expected}
    for type_ in (None, nested):
        assert encoded(nested.model_validate({outer: [value]}), type_) == {outer: [expected]}
    typed = TypedDict("typed", types)  # type: ignore[misc]  # made here
    assert encoded(leaves, typed) == expected


@given(st.dictionaries(NAMES, LEAVES, min_size=1, max_size=4))
def test_a_dataclass_may_have_any_field_too(leaves: dict[str, Any]) -> None:
    try:
        class_ = make_dataclass("Data", [(name, type(leaf)) for name, leaf in leaves.items()])
    except TypeError:  # a keyword of Python
        return
    expected = {name: plain(leaf) for name, leaf in leaves.items()}
    for type_ in (None, class_, list[class_] | class_):  # type: ignore[valid-type]  # made here
        assert encoded(class_(**leaves), type_) == expected


@given(NAMES, NAMES, st.binary(max_size=3))
def test_a_union_may_be_discriminated_by_any_field(tag: str, field: str, data: bytes) -> None:
    first = model("First", {tag: (Literal["type"], ...)})
    other = {} if field == tag else {field: (bytes, ...)}
    second = model("Second", {tag: (Literal["any"], ...), **other})
    union = Annotated[first | second, Field(discriminator=tag)]  # type: ignore[valid-type]  # made here
    assert encoded({tag: "type"}, union) == {tag: "type"}
    value = {tag: "any"} | ({} if field == tag else {field: data})
    expected = {name: plain(leaf) for name, leaf in value.items()}
    assert encoded(value, union) == expected
    assert encoded([value], list[union]) == [expected]


class Said(BaseModel):
    type: Literal["said"] = "said"
    text: str


class Left(BaseModel):
    type: Literal["left"] = "left"
    at: int


Event = Annotated[Said | Left, Field(discriminator="type")]


def test_such_a_union_reaches_a_client(comet: Comet, server: Address) -> None:
    room = comet.create(scope=SITE, name="room", type=Event)
    untyped = comet.create(scope=SITE, name="untyped")

    @comet.channel("log")
    async def log() -> AsyncIterator[Event]:
        await sleep_forever()
        yield Said(text="never")

    room.publish(Left(at=3))
    untyped.publish(Said(text="hello"))
    log.channel().publish(Said(text="begun"))
    found = poll(server, dict.fromkeys(("room", "untyped", "log"), "last:1"))
    assert {event["channel"]: event["data"] for event in found if "data" in event} == {
        "room": {"type": "left", "at": 3},
        "untyped": {"type": "said", "text": "hello"},
        "log": {"type": "said", "text": "begun"},
    }
    comet.notifier("people").notify(1, Said(text="hello"))
