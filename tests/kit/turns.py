"""Turns of the loop that a test runs in."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint


async def settle() -> None:
    """Let everybody come as far as they get, where nobody waits for more than another task."""
    for _ in range(20):
        await checkpoint()


async def until(condition: Callable[[], bool]) -> None:
    """Return once something holds."""
    while not condition():
        await checkpoint()


async def wait_all_tasks_blocked() -> None:
    """Do as AnyIO's function of that name, which on asyncio sleeps 0.1 s before it looks again."""
    await settle()  # so that it need not
    await anyio.wait_all_tasks_blocked()
