"""A running `Comet` with a clock that is advanced by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgi_comet import Comet, Settings
from asgi_comet.testing import ManualClock
from tests.kit.stage import KEY, TOKEN
from tests.kit.turns import wait_all_tasks_blocked

Clocked = tuple[Comet, ManualClock]


def make(clock: ManualClock | None = None, **settings: Any) -> Comet:
    settings.setdefault("jitter", 0)
    clock = clock or ManualClock()
    return Comet(KEY, admin=TOKEN, settings=Settings(**settings), clock=clock)


def make_clocked(**settings: Any) -> Clocked:
    """Make a `Comet`, and the clock that it goes by."""
    clock = ManualClock()
    return make(clock, **settings), clock


@asynccontextmanager
async def running(made: Clocked | None = None, **settings: Any) -> AsyncIterator[Clocked]:
    """Run a `Comet`, with its sources started, while the context lasts."""
    comet, clock = made or make_clocked(**settings)
    async with comet.lifespan():
        await wait_all_tasks_blocked()
        yield comet, clock


async def advance(clock: ManualClock, seconds: float) -> None:
    """Let time pass at once, and everything happen that was due."""
    clock.advance(seconds)
    await wait_all_tasks_blocked()
