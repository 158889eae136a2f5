"""Annotations of sources: the type of the items, and of the parameters.

Owns where names in annotations are looked up. Must not know channels, or the use of a type.

An annotation may be a string, as a whole (`from __future__ import annotations`) or in part, and its
names may not exist at run time: `AsyncIterator` is often imported for type checkers only. So each
annotation is evaluated alone, and of a returned type the item suffices.
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

_ASYNC = {
    "AsyncGenerator",
    "AsyncIterable",
    "AsyncIterator",
}  # may not exist at run time


def name_type(type_: Any) -> str:
    """Return the name of a type for an error: the name of a class, else the type as written."""
    return type_.__name__ if isinstance(type_, type) else str(type_)


def item_type(source: Callable[..., Any]) -> Any:
    """Return the item type annotated on a source function, or `None` if it has no annotation.

    Args:
        source: A function annotated to return an `AsyncIterator[T]` or similar; also a partial
            function or a callable object.

    Raises:
        TypeError: The annotation has a name that is unknown where the function is defined.
    """
    annotation = getattr(_find_function(source), "__annotations__", {}).get("return")
    try:
        returned = resolve(annotation, source)
    except Exception as error:  # evaluating an annotation can raise anything
        return _find_item(annotation, source, error)
    origin, items = get_origin(returned), get_args(returned)
    if items and isinstance(origin, type) and issubclass(origin, AsyncIterable):
        return items[0]
    return None


def resolve(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return the type that an annotation of a function means.

    Names are looked up in the module of the function and in its closure. A local class that the
    function does not use is not found.

    Raises:
        Exception: Evaluating the annotation raised; a `NameError` for an unknown name.
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
    """Return the last name of an annotation, and its first parameter."""
    outer = ast.parse(annotation.strip(), mode="eval").body
    item = outer.slice if isinstance(outer, ast.Subscript) else None
    if isinstance(item, ast.Tuple):
        item = item.elts[0]
    known = outer.value if isinstance(outer, ast.Subscript) else outer
    name = getattr(known, "attr", getattr(known, "id", ""))
    return name, None if item is None else ast.unparse(item)
