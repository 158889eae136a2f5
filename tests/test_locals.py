from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from asgi_comet import ClientProcess, NoClientProcess, ProcessClosed, ProcessLocal
from asgi_comet.identity.current import current_process
from asgi_comet.testing._inspect import client_of, inside
from tests.kit.processes import open_in
from tests.kit.running import make, running


class Thing:
    def __init__(self, process: ClientProcess | None = None) -> None:
        self.process = process


class OfProcess:
    def __init__(self, process: ClientProcess) -> None:
        self.process = process


def test_each_process_has_one_made_when_first_asked_for() -> None:
    comet, made = make(), list[ClientProcess]()
    one, other = open_in(comet), open_in(comet)

    def factory(process: ClientProcess) -> Thing:
        made.append(process)
        return Thing(process)

    local = ProcessLocal(factory)
    assert made == []
    assert local.get(one) is local.get(one)
    assert made == [one]
    assert local.get(other) is not local.get(one)
    assert made == [one, other]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (dict, {}),  # which has no signature
        (list, []),
        (lambda: 1, 1),
        (lambda process=None: process, None),
        (lambda *args, **kwargs: (args, kwargs), ((), {})),
        (partial(int, "7"), 7),
    ],
)
def test_a_factory_that_requires_nothing_is_called_without_arguments(
    factory: Callable[[], Any], expected: Any
) -> None:
    assert ProcessLocal(factory).get(open_in(make())) == expected


def pair(process: ClientProcess, more: int = 1) -> tuple[ClientProcess, int]:
    return process, more


def test_a_factory_that_requires_one_argument_is_called_with_the_process() -> None:
    process = open_in(make())
    assert ProcessLocal(OfProcess).get(process).process is process
    assert ProcessLocal(pair).get(process) == (process, 1)


async def factory_async() -> int:
    return 1


@pytest.mark.parametrize(
    "factory",
    [1, factory_async, lambda a, b: None, lambda *, a: None],
    ids=["number", "async", "two arguments", "a named one"],
)
def test_other_factories_are_refused(factory: Any) -> None:
    with pytest.raises(TypeError, match="expected a factory"):
        ProcessLocal(factory)


def test_a_value_can_be_set_and_may_be_none() -> None:
    process, local = open_in(make()), ProcessLocal[int | None](lambda: 1)
    local.set(5, process)
    assert local.get(process) == 5
    local.set(None, process)
    assert local.get(process) is None


async def test_the_process_is_by_default_the_current_one() -> None:
    local = ProcessLocal[list[int]](list)
    with pytest.raises(NoClientProcess, match="pass process=process"):
        local.get()
    with pytest.raises(NoClientProcess, match="outside of a request"):
        local.set([])
    scope = {"type": "http", "headers": [], "scheme": "http"}
    async with running() as (comet, _):
        with inside(comet).requests.begin(scope):
            process = comet.open_process()
            assert current_process() is process
            assert local.get() is local.get(process)
            local.set([1])
        assert local.get(process) == [1]


def test_a_factory_may_ask_for_another_value_and_one_that_fails_is_asked_again() -> None:
    process, fails = open_in(make()), [True]

    def fail_once(process: ClientProcess) -> list[int]:
        if fails.pop():
            raise LookupError
        return [*base.get(process), 2]

    base = ProcessLocal(lambda: [1])
    local = ProcessLocal(fail_once)
    with pytest.raises(LookupError):
        local.get(process)
    fails.append(False)
    assert local.get(process) == [1, 2]


def test_the_factory_runs_once_however_many_threads_ask() -> None:
    process, made, together = open_in(make()), list[Thing](), threading.Barrier(8)
    in_it = threading.Barrier(2)

    def factory() -> Thing:
        with contextlib.suppress(threading.BrokenBarrierError):
            in_it.wait(0.2)  # for a second one, which does not come
        made.append(Thing())
        return made[-1]

    local = ProcessLocal(factory)

    def get(_: int) -> Thing:
        together.wait(20)
        return local.get(process)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(get, range(8))) == set(made)
    assert len(made) == 1


def test_a_closed_process_has_none() -> None:
    process, local = open_in(make()), ProcessLocal[list[int]](list)
    process.close()
    with pytest.raises(ProcessClosed):
        local.get(process)
    with pytest.raises(ProcessClosed):
        local.set([], process)
    assert client_of(process).locals is None


def test_a_value_is_freed_when_its_process_closes() -> None:
    process, local = open_in(make()), ProcessLocal(Thing)
    value = weakref.ref(local.get(process))
    gc.collect()
    assert value() is not None
    process.close()
    gc.collect()
    assert value() is None


def test_a_value_whose_process_closes_while_it_is_made_is_freed_too() -> None:
    process = open_in(make())

    def factory() -> Thing:
        process.close()
        return Thing()

    value = weakref.ref(ProcessLocal(factory).get(process))
    gc.collect()
    assert value() is None


def test_a_value_is_freed_when_its_local_is_dropped() -> None:
    process, local = open_in(make()), ProcessLocal(Thing)
    value = weakref.ref(local.get(process))
    del local
    gc.collect()
    assert value() is None
    assert not process.closed
