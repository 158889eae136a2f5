from __future__ import annotations

import threading

import anyio
import pytest

from asgi_comet._runtime.loop import LoopThread
from asgi_comet.errors import NotRunning
from tests.kit.stage import on_every_loop

pytestmark = pytest.mark.anyio
anyio_backend = on_every_loop


async def test_in_its_own_thread_a_function_runs_at_once_and_from_another_soon() -> None:
    loop, seen = LoopThread(), list[int]()
    loop.enter()
    loop.check()
    loop.check_here()
    assert loop.running
    loop.run(lambda: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()]
    done = anyio.Event()
    await anyio.to_thread.run_sync(loop.run, done.set)
    with anyio.fail_after(5):
        await done.wait()


async def test_what_runs_now_is_done_when_the_caller_goes_on() -> None:
    loop, seen = LoopThread(), list[int]()
    loop.enter()

    def run() -> bool:
        loop.run_now(lambda: seen.append(threading.get_ident()))
        return seen == [here]

    here = threading.get_ident()
    assert run()
    seen.clear()
    assert await anyio.to_thread.run_sync(run)


async def test_a_loop_that_is_blocked_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asgi_comet._runtime.loop.PATIENCE", 0.01)
    loop, ran = LoopThread(), anyio.Event()
    loop.enter()
    thread = threading.Thread(target=loop.run_now, args=[ran.set])
    thread.start()
    thread.join()  # here we are the loop
    assert "has been blocked for 0.01 s" in caplog.text
    with anyio.fail_after(5):
        await ran.wait()


async def test_a_second_loop_is_refused() -> None:
    loop = LoopThread()
    loop.enter()
    with pytest.raises(RuntimeError, match="one event loop per Comet"):
        await anyio.to_thread.run_sync(loop.check_here)


async def test_without_a_loop_nothing_runs_and_the_error_says_what_to_add() -> None:
    loop = LoopThread()
    loop.run(lambda: pytest.fail("ran"))
    loop.run_now(lambda: pytest.fail("ran"))
    with pytest.raises(NotRunning, match="add_middleware"):
        loop.check()
    loop.enter()
    loop.leave()
    assert not loop.running
    loop.run_soon(lambda: pytest.fail("ran"))


def test_a_loop_that_closed_without_its_lifespan_is_forgotten() -> None:
    loop = LoopThread()

    async def enter() -> None:
        loop.enter()

    anyio.run(enter)
    assert loop.running
    loop.run_soon(lambda: pytest.fail("ran"))
    assert not loop.running
