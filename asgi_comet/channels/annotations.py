"""What the annotations of a source say: the type of what it yields, and of its parameters.

Owns where their names are looked up. Must not know channels, or what a type is used for.

An annotation may be a text, for the whole module (`from __future__ import annotations`) or in
part, and its names need not exist at run time: `AsyncIterator` is often imported for type checkers
only. So each annotation is read by itself, and of what is returned the item is enough.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import AsyncIterable, Callable
from functools import partial
from inspect import isfunction, ismethod
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

__all__ = ["item_type", "name_type", "resolve"]

_ASYNC = {"AsyncGenerator", "AsyncIterable", "AsyncIterator"}  # what need not exist at run time


def name_type(type_: Any) -> str:
    """Return how an error names a type: a class by its name, any other type as it is written."""
    return type_.__name__ if isinstance(type_, type) else str(type_)


def item_type(source: Callable[..., Any]) -> Any:
    """Return what a function that makes a source yields, by its annotation; `None` if it is mute.

    Args:
        source: Annotated to return an `AsyncIterator[T]`, or one of its kind; also a partial one,
            or an object that is called.

    Raises:
        TypeError: The annotation names what is not known where the function is: silence would
            leave the channel without a type.
    """
    annotation = getattr(_find_function(source), "__annotations__", {}).get("return")
    try:
        returned = resolve(annotation, source)
    except Exception as error:  # whatever evaluating an annotation comes to
        return _find_item(annotation, source, error)
    origin, items = get_origin(returned), get_args(returned)
    if items and isinstance(origin, type) and issubclass(origin, AsyncIterable):
        return items[0]
    return None


def resolve(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return the type that an annotation of a function means.

    Its names are looked up in the module of the function, and in what the function has from around
    it: not a class that is local there, and that the function does not use.

    Raises:
        Exception: Whatever evaluating it raises; a `NameError` for what is not known.
    """
    found = inspect.unwrap(_find_function(function))
    names = getattr(found, "__globals__", {})
    around = {t.__name__: t for t in getattr(found, "__type_params__", ())} | _closure(found)
    holder = SimpleNamespace(__annotations__={"it": annotation})
    return get_type_hints(holder, names, around, include_extras=True)["it"]


def _find_function(source: Any) -> Any:
    while isinstance(source, partial):
        source = source.func
    return source if isfunction(source) or ismethod(source) else type(source).__call__


def _closure(function: Any) -> dict[str, Any]:
    cells = zip(
        getattr(getattr(function, "__code__", None), "co_freevars", ()),
        getattr(function, "__closure__", None) or (),
        strict=True,
    )
    found: dict[str, Any] = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    return found


def _find_item(annotation: Any, source: Callable[..., Any], error: Exception) -> Any:
    """Return the item of an annotation that cannot be resolved as a whole."""
    try:
        outer, item = _take_apart(annotation) if isinstance(annotation, str) else ("", None)
        if outer in _ASYNC:
            return None if item is None else resolve(item, source)
    except Exception as problem:
        error = problem
    raise TypeError(
        "expected an annotation that says what the source yields, by names that are known where "
        f"it is defined, got {annotation!r}: {error}; import them at run time, or say type="
    ) from error


def _take_apart(annotation: str) -> tuple[str, str | None]:
    """Return the last name of what is annotated, and the first of its parameters."""
    outer = ast.parse(annotation.strip(), mode="eval").body
    item = outer.slice if isinstance(outer, ast.Subscript) else None
    if isinstance(item, ast.Tuple):
        item = item.elts[0]
    known = outer.value if isinstance(outer, ast.Subscript) else outer
    name = getattr(known, "attr", getattr(known, "id", ""))
    return name, None if item is None else ast.unparse(item)
