from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_comet._runtime import fairness
from asgi_comet._runtime.fairness import STRETCH, Slice

pytestmark = pytest.mark.anyio


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, to be set."""
    now = [0.0]
    monkeypatch.setattr(fairness, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


async def test_a_turn_is_over_after_a_stretch_and_a_rest_begins_the_next(now: list[float]) -> None:
    slice_ = Slice()
    now[0] += STRETCH
    assert not slice_.used
    now[0] += STRETCH / 2
    assert slice_.used
    await slice_.yield_()
    assert not slice_.used


async def test_others_run_while_it_rests(now: list[float]) -> None:
    seen = list[str]()

    async def other() -> None:
        seen.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(2):  # trio runs what is ready in any order
            await Slice().yield_()
        assert seen == ["other"]


@pytest.mark.parametrize("workers", [1, 2, 32])
async def test_tasks_that_share_a_turn_take_one_stretch_together(
    now: list[float], workers: int
) -> None:
    slice_, work, per_turn, stretches = Slice(), STRETCH / 4, list[float](), [0.0]

    async def worker() -> None:
        for _ in range(200):
            now[0] += work
            stretches[0] += work
            if slice_.used:
                await slice_.yield_()

    async def watch() -> None:
        while True:
            per_turn.append(stretches[0])
            stretches[0] = 0.0
            await checkpoint()

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(worker)
        watching.cancel_scope.cancel()
    # One piece of work each at the very least, and twice where the order of tasks changes.
    assert max(per_turn) <= 2 * (STRETCH + (workers + 1) * work)
