from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import sleepers

pytestmark = pytest.mark.anyio


async def test_a_manual_clock_moves_only_when_it_is_advanced() -> None:
    clock, woken = ManualClock(), list[float]()

    async def sleep(seconds: float) -> None:
        await clock.sleep_until(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (2, 1, 0, -1):
            tasks.start_soon(sleep, seconds)
        await wait_all_tasks_blocked()
        assert sorted(woken) == [-1, 0]
        clock.advance(1)
        await wait_all_tasks_blocked()
        assert sorted(woken) == [-1, 0, 1]
        await anyio.to_thread.run_sync(clock.advance, 1)  # from any thread
    assert sorted(woken) == [-1, 0, 1, 2]
    assert clock.now() == 2
    assert sleepers(clock) == []
