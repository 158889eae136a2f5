"""Ten thousand held requests, the server in a process of its own."""

from __future__ import annotations

import pytest

from benchmarks.held import run
from tests.kit.workers import own_workers

pytestmark = own_workers("a server program that holds ten thousand requests")

COUNT = 10_000


@pytest.mark.long(3)
@pytest.mark.slow
def test_ten_thousand_held_requests_one_write_and_nothing_is_left() -> None:
    # Python's own allocator keeps arenas that a single long-lived object sits in, so freed memory
    # shows in the process' size only with the system's.
    _, found = run(COUNT, rounds=2, PYTHONMALLOC="malloc")  # the first fills caches and pools
    assert (found.held, found.answered, found.left) == (COUNT, COUNT, 0)
    assert found.memory_held > found.memory_before * 1.5
    assert found.memory_after <= found.memory_before * 1.1


@pytest.mark.slow
def test_held_requests_leave_no_object() -> None:
    count = COUNT // 4
    _, found = run(count, rounds=2)
    assert (found.held, found.answered, found.left) == (count, count, 0)
    assert found.blocks_before > 0  # live blocks of Python
    assert found.blocks_after - found.blocks_before < count / 4
