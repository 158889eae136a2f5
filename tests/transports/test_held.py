from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import Comet
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.waiting import Deadline, Interrupt, make_interrupt
from asgi_comet.channels.feed import Wake
from asgi_comet.http.exchange import Exchange
from asgi_comet.testing._inspect import inside
from asgi_comet.transports.held import Hold, make_hold
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio

KEY = "k" * 32


def interrupt() -> Interrupt:
    loop = LoopThread()
    loop.enter()
    return make_interrupt(loop.asyncio)


def hold_() -> Hold:
    node = inside(Comet(KEY))
    node.loop.enter()
    exchange = Exchange({"type": "http", "headers": []}, never, never, "", "/poll")
    return make_hold(node, exchange, None, None)


async def never(*_: object) -> Any:
    raise NotImplementedError


async def test_a_wait_gives_what_came() -> None:
    waiting = interrupt()

    async def come() -> str:
        await anyio.lowlevel.checkpoint()
        return "came"

    assert await waiting.run(come) == "came"
    assert await waiting.run(come) == "came"


async def test_a_wait_can_be_called_off_before_and_meanwhile() -> None:
    waiting, found = interrupt(), list[Any]()

    async def wait() -> None:
        found.append(await waiting.run(anyio.sleep_forever))
        found.append(await waiting.run(anyio.sleep_forever))  # called off before it began
        await anyio.lowlevel.checkpoint()  # and no cancellation is left over
        found.append("went on")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        waiting.fire()
        waiting.fire()
    assert found == [None, None, "went on"]


async def test_a_deadline_calls_a_wait_off() -> None:
    waiting = interrupt()
    Deadline(waiting).expire()
    await waiting.run(anyio.sleep_forever)
    assert waiting.fired


async def test_a_cancellation_by_somebody_else_passes() -> None:
    waiting = interrupt()
    with anyio.move_on_after(0.01) as scope:
        await waiting.run(anyio.sleep_forever)
    assert scope.cancelled_caught


async def test_a_cancellation_in_the_same_moment_passes_too() -> None:
    waiting, reached = interrupt(), list[str]()

    async def wait() -> None:
        await waiting.run(anyio.sleep_forever)
        await anyio.lowlevel.checkpoint()
        reached.append("went on")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        waiting.fire()
        tasks.cancel_scope.cancel()
    assert reached == []


async def test_an_error_of_the_wait_passes() -> None:
    waiting = interrupt()

    async def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await waiting.run(fail)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_in_the_same_moment_passes_too() -> None:
    waiting = interrupt()

    async def wait() -> None:
        await waiting.run(anyio.sleep_forever)

    task = asyncio.create_task(wait())
    await wait_all_tasks_blocked()
    waiting.fire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_message_in_the_same_moment_as_the_wake_is_not_taken() -> None:
    waiting, arrived = interrupt(), asyncio.Event()
    task = asyncio.create_task(waiting.run(arrived.wait))
    await wait_all_tasks_blocked()
    arrived.set()
    waiting.fire()
    assert await task is None
    assert task.cancelling() == 0


async def receive_from(messages: list[dict[str, Any]]) -> dict[str, Any]:
    if not messages:
        await anyio.sleep_forever()
    return messages.pop(0)


async def test_a_hold_ends_when_the_client_has_left_and_not_before() -> None:
    hold = hold_()
    more = [{"type": "http.request"}, {"type": "http.disconnect"}]
    assert await hold.wait(lambda: receive_from(more)) is Wake.GONE
    assert more == []
    hold.wake(Wake.MESSAGE)
    assert hold.woken is Wake.GONE


async def test_a_hold_ends_when_it_is_woken() -> None:
    hold, found = hold_(), list[Wake]()

    async def wait() -> None:
        found.append(await hold.wait(lambda: receive_from([])))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        hold.expire()
        hold.wake(Wake.MESSAGE)
    assert found == [Wake.TIMEOUT]


async def test_a_hold_that_was_woken_before_it_waits_does_not_wait() -> None:
    hold = hold_()
    hold.wake(Wake.MESSAGE)
    hold.wake(Wake.TIMEOUT)
    assert await hold.wait(lambda: receive_from([])) is Wake.MESSAGE


async def test_a_cancellation_of_a_hold_by_somebody_else_passes() -> None:
    hold = hold_()
    with anyio.move_on_after(0.01) as scope:
        await hold.wait(lambda: receive_from([]))
    assert scope.cancelled_caught
    assert hold.woken is None


async def test_a_cancellation_of_a_hold_in_the_same_moment_passes_too() -> None:
    hold, reached = hold_(), list[str]()

    async def wait() -> None:
        await hold.wait(lambda: receive_from([]))
        await anyio.lowlevel.checkpoint()
        reached.append("went on")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        hold.wake(Wake.MESSAGE)
        tasks.cancel_scope.cancel()
    assert reached == []
