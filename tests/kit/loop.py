"""The server's loop, from the thread of a test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from asgi_comet import Comet, Delivery, Outcome
from asgi_comet.testing._inspect import inside
from tests.kit.streams import PATIENCE


def in_loop(comet: Comet, function: Callable[[], None]) -> None:
    """Run a function in one turn of the server's loop."""
    inside(comet).loop.run(function)


def turn(comet: Comet, times: int) -> None:
    """Let the server's loop turn, and return then."""
    for _ in range(times):
        inside(comet).loop.run_now(lambda: None)


def soon(comet: Comet, condition: Callable[[], bool]) -> bool:
    """Tell whether something holds after some turns of the loop, however long others keep it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        turn(comet, 1)
    return True


def outcome(comet: Comet, write: Callable[[], Delivery]) -> Outcome:
    """Write, and await the delivery, in the server's loop; from the thread of the test."""
    found: list[Outcome] = []
    done = threading.Event()

    async def wait(delivery: Delivery) -> None:
        found.append(await delivery)
        done.set()

    tasks = []
    inside(comet).loop.run(lambda: tasks.append(asyncio.create_task(wait(write()))))
    assert done.wait(20)
    return found[0]


def wait_in_loop(comet: Comet, function: Callable[[], Any]) -> None:
    """Await something in the lifespan's loop, from the thread of the test."""
    done = threading.Event()
    failed: list[BaseException] = []

    async def run() -> None:
        try:
            await function()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            done.set()

    inside(comet).background.start(run)
    assert done.wait(20)
    if failed:
        raise failed[0]
