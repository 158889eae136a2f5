"""Calls of application functions, sync or async, without blocking the event loop.

Owns the convention, which is FastAPI's: `async` functions run in the loop, other functions in a
worker thread. Must not know the functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from anyio import to_thread

__all__ = ["call", "is_async", "misfit", "name_of"]


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a function is async; also a partial function or a callable object."""
    while isinstance(function, partial):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for the log: the module and the qualified name."""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    parts = filter(None, [named.__module__, named.__qualname__])  # a builtin has no module
    return ".".join(parts).replace("<locals>.", "")


def misfit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Return why a function does not take some arguments, with its signature; `None` if it does.

    Also `None` if the signature is not available.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return f"{signature}: {error}"
    return None


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function: in the loop if it is async, else in a worker thread.

    The function sees the caller's context variables. A thread cannot be stopped: a cancelled caller
    continues at once, the abandoned thread runs to completion, and its result is discarded.

    Args:
        function: Sync or async. An awaitable returned by a sync function is awaited in the loop.
        *args: Positional arguments.
        **kwargs: Keyword arguments.

    Returns:
        The result of the function; its exceptions are raised.

    Source: FastAPI, "Concurrency and async / await".
    """
    if is_async(function):
        return await function(*args, **kwargs)
    # In a tuple, because trio refuses a coroutine from a thread.
    (found,) = await to_thread.run_sync(
        lambda: (function(*args, **kwargs),), abandon_on_cancel=True
    )
    return await found if isawaitable(found) else found
