"""A value per client process, as an Eliom reference of scope client process.

Owns the life of a value: made once, when first needed, and freed when the process closes or the
application drops the `ProcessLocal`, whichever is first. Must not know the types of values.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar, cast, overload
from weakref import WeakKeyDictionary

from asgi_comet._runtime.functions import is_async
from asgi_comet.errors import ProcessClosed
from asgi_comet.identity.current import current_process
from asgi_comet.identity.process import Client, ClientProcess, client_of

__all__ = ["ProcessLocal"]

T = TypeVar("T")

_keeping = threading.Lock()


class Kept:
    """The values of one client process."""

    __slots__ = ("lock", "values")

    def __init__(self) -> None:
        # Reentrant: the factory of a value may need another value.
        self.lock: AbstractContextManager[object] = threading.RLock()
        self.values: WeakKeyDictionary[ProcessLocal[object], object] = WeakKeyDictionary()


class ProcessLocal(Generic[T]):
    """A value of each client process, made when the application first asks for it.

    A `ProcessLocal` needs no `Comet`, so a module can make one when it is loaded. A value that
    refers to its `ProcessLocal` keeps it until the process closes. Thread-safe: the factory runs
    once for each client process.

    Args:
        factory: Makes the value. Called with the client process if it has a required positional
            parameter, else without arguments.

    Raises:
        TypeError: `factory` cannot be called, is async, or requires other parameters.

    Source: `Eliom_reference.Volatile` with scope `client_process`.
    """

    __slots__ = ("__weakref__", "_factory")

    @overload
    def __init__(self, factory: Callable[[ClientProcess], T]) -> None: ...

    @overload
    def __init__(self, factory: Callable[[], T]) -> None: ...

    def __init__(self, factory: Callable[[ClientProcess], T] | Callable[[], T]) -> None:
        self._factory: Callable[[ClientProcess], T]
        if _takes_process(factory):
            self._factory = cast(Callable[[ClientProcess], T], factory)
        else:
            plain = cast(Callable[[], T], factory)
            self._factory = lambda _: plain()

    def get(self, process: ClientProcess | None = None) -> T:
        """Return the value of a client process, made now if it has none.

        Args:
            process: Whose; by default the current one.

        Raises:
            NoClientProcess: There is no current one.
            ProcessClosed: The client process has closed.
            TypeError: `process` is no client process.

        Source: `Eliom_reference.Volatile.get`, and `Ext.get` with a process.
        """
        client = current_process() if process is None else client_of(process)
        kept = _keep(client)
        key = cast("ProcessLocal[object]", self)
        with kept.lock:
            if key not in kept.values:
                kept.values[key] = self._factory(client)
            return cast(T, kept.values[key])

    def set(self, value: T, process: ClientProcess | None = None) -> None:
        """Give a client process another value.

        Args:
            value: What `get` returns from now on.
            process: Whose; by default the current one.

        Raises:
            NoClientProcess: There is no current one.
            ProcessClosed: The client process has closed.
            TypeError: `process` is no client process.

        Source: `Eliom_reference.Volatile.set`.
        """
        client = current_process() if process is None else client_of(process)
        kept = _keep(client)
        with kept.lock:
            kept.values[cast("ProcessLocal[object]", self)] = value


def _keep(process: Client) -> Kept:
    """Return the values of a client process.

    Raises:
        ProcessClosed: It has closed; one that closes from now on lets go of them.
    """
    with _keeping:
        kept = process.locals
        if kept is None:
            kept = process.locals = Kept()
    if process.closed:
        process.locals = None
        raise ProcessClosed(process.id)
    process.hold()
    return cast(Kept, kept)


def _takes_process(factory: object) -> bool:
    if not callable(factory) or is_async(factory):
        raise TypeError(f"expected a factory that is a function and not async, got {factory!r}")
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a class of Python's own, like `dict`
        return False
    required = [p for p in parameters if p.default is p.empty and p.kind not in _MANY]
    positional = [p for p in required if p.kind is not p.KEYWORD_ONLY]
    if len(required) > 1 or len(positional) != len(required):
        raise TypeError(
            "expected a factory with at most one required parameter, the client process, "
            f"got {', '.join(p.name for p in required)}"
        )
    return bool(positional)


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
