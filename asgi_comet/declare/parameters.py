"""The parameters of a declared source: the words of the name, with types.

Owns the conversion between the text of a name and values. Must not know channels.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.channels.annotations import name_type, resolve
from asgi_comet.core.names import NAME_LIMIT
from asgi_comet.core.pattern import Pattern
from asgi_comet.errors import InvalidDeclaration, InvalidName
from asgi_comet.log_events import event

__all__ = ["Words", "check_process_source", "check_source"]

_logger = logging.getLogger(__name__)


class Word(NamedTuple):
    """The type of one word.

    Attributes:
        adapter: Converts text to a value and back.
        type: The name of the type in errors.
    """

    adapter: TypeAdapter[Any]
    type: str


_TEXT = Word(TypeAdapter(str, config=ConfigDict(coerce_numbers_to_str=True)), "str")

AFTER = "after"  # the parameter of a source that goes on after a message
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_PLACE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


def check_source(name: str, function: Any) -> None:
    """Check that a declared object is an async generator function.

    Raises:
        InvalidDeclaration: The object is something else; the text names it.
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
        words: The words by name, in the order of positional arguments.
    """

    __slots__ = ("_pattern", "_warnings", "_words")

    def __init__(self, pattern: Pattern, words: dict[str, Word]) -> None:
        self._pattern = pattern
        self._warnings = Seldom(_logger)
        self._words = words

    @classmethod
    def of_source(
        cls, pattern: Pattern, function: Callable[..., Any], *, continues: bool = False
    ) -> Words:
        """Return the words of a name whose source has a parameter for each.

        Args:
            pattern: The name.
            function: The source.
            continues: Whether the source has the parameter `after` besides.

        Raises:
            InvalidDeclaration: The function has other parameters, or a type that pydantic does not
                know.
        """
        every = inspect.signature(function).parameters.values()
        parameters = [one for one in every if not (continues and one.name == AFTER)]
        names = [parameter.name for parameter in parameters]
        if set(names) != set(pattern.words):
            raise InvalidDeclaration(
                pattern.name,
                f"expected parameters for its words {list(pattern.words)}, got {names}",
            )
        for parameter in parameters:
            if parameter.kind not in BY_NAME:
                reason = f"expected parameters that are given by name, got {parameter}"
                raise InvalidDeclaration(pattern.name, reason)
        return cls(pattern, {p.name: _make_word(pattern.name, function, p) for p in parameters})

    @classmethod
    def of_family(cls, pattern: Pattern, authorize: Callable[..., Any] | None) -> Words:
        """Return the words of a family without a source, typed by the annotations of `authorize`.

        A word without an annotation is text; a number is converted to text.

        Raises:
            InvalidDeclaration: A word has a type that pydantic does not know.
        """
        words = dict.fromkeys(pattern.words, _TEXT)
        if authorize is not None:
            for name, parameter in inspect.signature(authorize).parameters.items():
                if name in words and parameter.annotation is not inspect.Parameter.empty:
                    words[name] = _make_word(pattern.name, authorize, parameter)
        return cls(pattern, words)

    def bind(self, args: tuple[Any, ...], words: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by word.

        Raises:
            TypeError: The arguments are not the words of the name.
        """
        placed = dict(zip(self._words, args, strict=False))
        if len(args) > len(self._words) or placed.keys() & words.keys():
            raise TypeError(self._misfit([*args, *words]))
        return placed | words

    def _misfit(self, came: list[Any]) -> str:
        return (
            f"expected the words {list(self._pattern.words)} of channel {self._pattern.name!r}, "
            f"got {came}"
        )

    def read(self, texts: dict[str, str]) -> dict[str, Any] | None:
        """Parse words as values; `None` if a word does not fit its type.

        Each value has one spelling, the one of `fill`: `01` is not `1`. Otherwise two names with
        equal values would be two channels, and a right revoked on one would remain on the other. A
        type that raises an unexpected error refuses the text, too; the error is logged, since
        clients choose the text.
        """
        try:
            values = self._read(texts)
            same = texts == {
                w: _write(self._words[w].adapter, value) for w, value in values.items()
            }
            return values if same and self._read(texts) == values else None  # not so `nan`
        except (ValidationError, PydanticSerializationError):
            return None
        except Exception as error:
            self._warnings.warning(
                "no channel of %.200r has the words %.200r: its types raised %.200r",
                self._pattern.name,
                texts,
                error,
                extra=event("channel.unstarted", channel=self._pattern.name, reason=repr(error)),
            )
            return None

    def fill(self, values: dict[str, Any]) -> str:
        """Return the name with these values as words.

        Raises:
            TypeError: The values are not for the words of the name.
            InvalidName: A value does not fit its type, the type raised, or the name would be parsed
                as other values.
        """
        if set(values) != set(self._words):
            raise TypeError(self._misfit(list(values)))
        valid, texts = {}, {}
        for word, value in values.items():
            adapter, type_ = self._words[word]
            try:
                valid[word] = adapter.validate_python(value)
                texts[word] = _write(adapter, valid[word])
            except Exception as error:
                reason = f"expected {word} to be {type_} ({_first(error)}), got {value!r:.80}"
                raise InvalidName(self._pattern.name, reason) from error
            if set(texts[word]) & set(":/"):
                reason = f"expected {word} to be without ':' and '/', got {value!r:.80}"
                raise InvalidName(self._pattern.name, reason)
        name = self._pattern.fill(texts)
        found = self._pattern.match(name)
        if found is None or self.read(found) != valid:
            raise InvalidName(name, f"it cannot be read as {self._pattern.name!r} with {values}")
        return name

    def _read(self, texts: dict[str, str]) -> dict[str, Any]:
        return {
            word: self._words[word].adapter.validate_strings(text) for word, text in texts.items()
        }


def _first(error: Exception) -> str:
    """Return the reason of an error, in one line."""
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"]
    return f"{type(error).__name__}: {error}"


def check_process_source(name: str, function: Callable[..., Any]) -> None:
    """Check that a function has one parameter, for the client process.

    Raises:
        InvalidDeclaration: The function has other parameters.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in _BY_PLACE:
        raise InvalidDeclaration(
            name,
            "expected one parameter, which gets the client process, got "
            f"{[str(parameter) for parameter in parameters]}",
        )


def _make_word(name: str, function: Callable[..., Any], parameter: inspect.Parameter) -> Word:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return Word(TypeAdapter(str), "str")
    try:
        found = resolve(annotation, function)
        return Word(TypeAdapter(found), name_type(found))
    except (PydanticUserError, NameError, TypeError, SyntaxError) as error:
        wanted = f"expected a type that pydantic knows for {parameter.name}"
        raise InvalidDeclaration(name, f"{wanted}, got {annotation!r}: {error}") from error


def _write(adapter: TypeAdapter[Any], value: Any) -> str:
    """Return the text of a value as a page would write it; equal values have equal texts."""
    if isinstance(value, Decimal):
        if abs(value.adjusted()) > NAME_LIMIT:
            raise ValueError(f"expected at most {NAME_LIMIT} digits, got {value}")
        return f"{value.normalize() + 0:f}"  # neither 1.0 nor 1E+2, nor -0
    plain = adapter.dump_python(value, mode="json", warnings="none")
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return str(plain + 0.0 if isinstance(plain, float) else plain)  # not -0.0
