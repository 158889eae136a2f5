"""Calling a function of the user's, sync or async, without holding up the event loop.

Owns the convention, which is FastAPI's: what is declared `async` runs in the loop, anything else in
a worker thread. Must not know what is called.
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
    """Tell whether a function is async, also behind `partial`, or as the call of an object."""
    while isinstance(function, partial):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for the log: its module, and where it is defined in there."""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    parts = filter(None, [named.__module__, named.__qualname__])  # of a builtin, no module
    return ".".join(parts).replace("<locals>.", "")


def misfit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Tell why a function does not take some arguments, with its signature; `None` if it does.

    Of one that has no signature to look at nothing is known.
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

    The function sees the caller's context variables. A thread cannot be stopped: who is cancelled,
    or waits no longer, goes on at once, and the function runs to its end with nobody to hear it.

    Args:
        function: Sync or async. What a sync one returns is awaited in the loop if it can be.
        *args: Its arguments.
        **kwargs: Its arguments by name.

    Returns:
        What it returns in the end; what it raises is raised.

    Source: FastAPI, "Concurrency and async / await".
    """
    if is_async(function):
        return await function(*args, **kwargs)
    # In a tuple, for trio refuses a coroutine from a thread.
    (found,) = await to_thread.run_sync(
        lambda: (function(*args, **kwargs),), abandon_on_cancel=True
    )
    return await found if isawaitable(found) else found
