"""References to channels in responses: the URL, the name and the position for a client.

Owns how pydantic, and so FastAPI, writes an object that has `reference()`: as a field of a model,
inside a plain value, and in the schema of an API. Must not know channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import SchemaSerializer, core_schema

__all__ = ["ChannelReference", "Referring"]


class ChannelReference(BaseModel):
    """Where a client subscribes to a channel, and from which position: for `comet.js`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    url: str = Field(description="Where to connect: the URL of the endpoints.")
    channel: str = Field(description="The name to subscribe to.")
    position: str = Field(description="Where to begin: nothing after it is missed.")


class Referring:
    """An object that a response contains as its reference.

    FastAPI converts a response without a model by `dict(value)`, so there is `__iter__`, as in
    pydantic's own models.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        __pydantic_serializer__: SchemaSerializer

    @abstractmethod
    def reference(self) -> dict[str, str]:
        """Return where a client subscribes."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.reference().items())

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        reference = handler.generate_schema(ChannelReference)
        return core_schema.json_or_python_schema(
            core_schema.no_info_after_validator_function(_refuse, reference),
            core_schema.is_instance_schema(cls),
            serialization=_as_reference(reference),
        )


def _refuse(reference: ChannelReference) -> None:
    raise ValueError(f"expected no channel in a request: it is only written, got {reference!r}")


def _as_reference(schema: core_schema.CoreSchema) -> core_schema.SerSchema:
    return core_schema.plain_serializer_function_ser_schema(
        lambda value: ChannelReference(**value.reference()), return_schema=schema
    )


# How pydantic writes a reference inside a value without a type.
Referring.__pydantic_serializer__ = SchemaSerializer(
    core_schema.any_schema(serialization=_as_reference(ChannelReference.__pydantic_core_schema__))
)
