"""The parameters of a declared source: the words of its name, as it types them.

Owns how the text of a name becomes values and back. Must not know channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from .annotations import resolve
from .errors import InvalidDeclaration, InvalidName
from .patterns import Pattern

__all__ = ["Words", "check_process_source", "check_source"]

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_PLACE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


def check_source(name: str, function: Any) -> None:
    """Raise unless something declared is an async generator function.

    Raises:
        InvalidDeclaration: It is something else; the text says what came.
    """
    if inspect.isasyncgenfunction(function):
        return
    came = getattr(function, "__qualname__", None) or type(function).__name__
    if inspect.iscoroutinefunction(function):
        came = f"{came}, an async function without yield"
    elif inspect.isgeneratorfunction(function):
        came = f"{came}, a generator function that is not async"
    raise InvalidDeclaration(name, f"expected an async generator function, got {came}")


class Words:
    """The words of a name, as values.

    Args:
        pattern: The name.
        function: What has a parameter for each word.

    Raises:
        InvalidDeclaration: It has others, or one of a type that pydantic does not know.
    """

    __slots__ = ("_adapters", "_pattern")

    def __init__(self, pattern: Pattern, function: Callable[..., Any]) -> None:
        parameters = inspect.signature(function).parameters.values()
        names = [parameter.name for parameter in parameters]
        if set(names) != set(pattern.words):
            raise InvalidDeclaration(
                pattern.name,
                f"expected parameters for its words {list(pattern.words)}, got {names}",
            )
        for parameter in parameters:
            if parameter.kind not in _BY_NAME:
                reason = f"expected parameters that are given by name, got {parameter}"
                raise InvalidDeclaration(pattern.name, reason)
        self._pattern = pattern
        self._adapters = {p.name: _make_adapter(pattern.name, function, p) for p in parameters}

    def read(self, texts: dict[str, str]) -> dict[str, Any] | None:
        """Return the values of words; `None` if one does not fit its type.

        A value has one spelling, that of `fill`, and no other is read: `01` is not `1`. Two names
        for the same values would be two channels, of which what is revoked for one stays open on
        the other.
        """
        try:
            values = self._read(texts)
            same = texts == {w: _write(self._adapters[w], value) for w, value in values.items()}
            return values if same and self._read(texts) == values else None  # not so `nan`
        except (ValidationError, PydanticSerializationError):
            return None

    def fill(self, values: dict[str, Any]) -> str:
        """Return the name with these values in it.

        Raises:
            TypeError: They are not for the words of the name.
            InvalidName: They do not fit, or would be read as others.
        """
        if set(values) != set(self._adapters):
            raise TypeError(
                f"expected the words {list(self._pattern.words)} of channel "
                f"{self._pattern.name!r}, got {list(values)}"
            )
        try:
            valid = {w: self._adapters[w].validate_python(value) for w, value in values.items()}
            texts = {w: _write(self._adapters[w], value) for w, value in valid.items()}
        except (ValidationError, PydanticSerializationError) as error:
            raise InvalidName(self._pattern.name, str(error)) from None
        name = self._pattern.fill(texts)
        found = self._pattern.match(name)
        if found is None or self.read(found) != valid:
            raise InvalidName(name, f"it cannot be read as {self._pattern.name!r} with {values}")
        return name

    def _read(self, texts: dict[str, str]) -> dict[str, Any]:
        return {word: self._adapters[word].validate_strings(text) for word, text in texts.items()}


def check_process_source(name: str, function: Callable[..., Any]) -> None:
    """Raise unless a function has one parameter, for the client process.

    Raises:
        InvalidDeclaration: It has others.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in _BY_PLACE:
        raise InvalidDeclaration(
            name,
            "expected one parameter, which gets the client process, got "
            f"{[str(parameter) for parameter in parameters]}",
        )


def _make_adapter(
    name: str, function: Callable[..., Any], parameter: inspect.Parameter
) -> TypeAdapter[Any]:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return TypeAdapter(str)
    try:
        return TypeAdapter(resolve(annotation, function))
    except (PydanticUserError, NameError, TypeError, SyntaxError) as error:
        wanted = f"expected a type that pydantic knows for {parameter.name}"
        raise InvalidDeclaration(name, f"{wanted}, got {annotation!r}: {error}") from error


def _write(adapter: TypeAdapter[Any], value: Any) -> str:
    """Return the text of a value, the same for equal ones, as a page would write it."""
    if isinstance(value, Decimal):
        return f"{value.normalize() + 0:f}"  # neither 1.0 nor 1E+2, nor -0
    plain = adapter.dump_python(value, mode="json", warnings="none")
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return str(plain + 0.0 if isinstance(plain, float) else plain)  # not -0.0
