from __future__ import annotations

import threading
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.functions import call, is_async, misfit, name_of
from tests.kit.turns import until

pytestmark = pytest.mark.anyio

colour: ContextVar[str] = ContextVar("colour", default="none")


async def in_loop(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    await checkpoint()
    return args, kwargs, threading.get_ident()


def in_thread(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args, kwargs, threading.get_ident()


class Async:
    async def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return await in_loop(*args, **kwargs)


class Sync:
    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return in_thread(*args, **kwargs)


@pytest.mark.parametrize(
    "function",
    [in_loop, partial(in_loop), Async(), partial(Async()), Async().__call__],
    ids=["function", "partial", "object", "partial object", "method"],
)
async def test_an_async_function_runs_in_the_loop(function: Any) -> None:
    assert is_async(function)
    assert await call(function, 1, a=2) == ((1,), {"a": 2}, threading.get_ident())


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (in_loop, "tests.test_calls.in_loop"),
        (partial(partial(in_loop, 1), 2), "tests.test_calls.in_loop"),
        (Sync(), "tests.test_calls.Sync"),
        (Sync, "tests.test_calls.Sync"),
        (Sync().__call__, "tests.test_calls.Sync.__call__"),
        (lambda: None, "tests.test_calls.<lambda>"),
        (print, "builtins.print"),
        ([].append, "list.append"),
        (partial(dict), "builtins.dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_function_has_a_name_in_the_log(function: Any, name: str) -> None:
    def inner() -> None:
        """One that is defined in another."""

    assert name_of(function) == name
    assert name_of(inner) == "tests.test_calls.test_a_function_has_a_name_in_the_log.inner"


@pytest.mark.parametrize(
    "function",
    [in_thread, partial(in_thread), Sync(), Sync().__call__],
    ids=["function", "partial", "object", "method"],
)
async def test_any_other_function_runs_in_a_worker_thread(function: Any) -> None:
    assert not is_async(function)
    args, kwargs, thread = await call(function, 1, a=2)
    assert (args, kwargs) == ((1,), {"a": 2})
    assert thread != threading.get_ident()


async def test_what_a_sync_function_returns_is_awaited_in_the_loop_if_it_can_be() -> None:
    assert await call(lambda: in_loop(3)) == ((3,), {}, threading.get_ident())


async def test_context_variables_are_those_of_the_caller() -> None:
    colour.set("green")
    assert await call(colour.get) == "green"


async def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await call(fail)


async def test_who_waits_no_longer_goes_on_though_the_thread_does() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        go.wait(20)
        done.set()

    async with create_task_group() as tasks:
        tasks.start_soon(call, stuck)
        await until(begun.is_set)
        tasks.cancel_scope.cancel()
    assert not done.is_set()
    go.set()
    assert await call(done.wait, 20)


def test_a_function_that_does_not_take_its_arguments_is_told_with_its_signature() -> None:
    assert misfit(in_thread, 1, two=2) is None
    assert misfit(lambda one: None, 1, 2) == "(one): too many positional arguments"
    assert misfit(min, 1, 2) is None  # of which nothing is known
